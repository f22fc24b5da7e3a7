"""Shapes and types in signatures are verified by every test."""

from hypothesis import settings
from jaxtyping import install_import_hook

import tests.support.typecheck  # noqa: F401 - the hook below finds it by name, once it is loaded

install_import_hook("speechllm", "tests.support.typecheck.check")

# Machines are noisy: a slow example is no failure, and the same examples are drawn on every run.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("default")
