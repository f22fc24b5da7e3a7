"""Shapes and types in signatures are verified by every test."""

from jaxtyping import install_import_hook

install_import_hook("speechllm", "beartype.beartype")
