"""Corpora: one file each, with a function `records(...)` that yields Records in a fixed order."""
