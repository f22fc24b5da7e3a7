"""Shapes and types in signatures are verified by every test."""

from jaxtyping import install_import_hook

import tests.support.typecheck  # noqa: F401 - the hook below finds it by name, once it is loaded

install_import_hook("speechllm", "tests.support.typecheck.check")
