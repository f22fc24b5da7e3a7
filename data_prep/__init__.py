"""Corpora, one file each, with two functions: `records(...)` yields Records in a fixed order, `card()` its facts."""
