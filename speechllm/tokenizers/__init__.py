"""Tokenizers: semantic codes, acoustic codes, and the features under both."""
