"""Which parameters train, by the names that they have in the model.

    freeze_modules(model, freeze=["*"], unfreeze=["model.layers.3.*", "lm_head"])

    pattern              what it names
    model.layers.0       the module, with all that is in it
    model.layers.[01].*  the same for the first two blocks
    *.mlp.*              the feed-forward layer of every block
    *                    everything

`unfreeze` has the last word. A matrix that two modules share (tied embeddings) goes by both of their names.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from speechllm.errors import ConfigError
from speechllm.registry import suggest


def freeze_modules(model: nn.Module, *, freeze: Sequence[str], unfreeze: Sequence[str] = ()) -> None:
    """Freeze, in place, the parameters that a pattern of `freeze` names and none of `unfreeze` does.

    Raises:
        ConfigError: a pattern names nothing, or nothing is left to train.
    """
    frozen = _named(model, freeze, "freeze")
    trained = _named(model, unfreeze, "unfreeze")
    for parameter in model.parameters():
        if id(parameter) in trained:
            parameter.requires_grad_(True)
        elif id(parameter) in frozen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"freeze = {list(freeze)} leaves nothing to train; name fewer modules, or some in unfreeze")


def _named(model: nn.Module, patterns: Iterable[str], key: str) -> set[int]:
    """Return the ids (of Python) of the parameters that any of the patterns names."""
    names = {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)}
    found: set[int] = set()
    for pattern in patterns:
        # A module's name stands for all that is in it.
        hits = {i for name, i in names.items() if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
        if not hits:
            raise ConfigError(
                f"{key}: nothing in the {type(model).__name__} is named {pattern!r}{_hint(model, pattern)}"
            )
        found |= hits
    return found


def _hint(model: nn.Module, pattern: str) -> str:
    """Return a suggestion in the form of the pattern, and where names begin."""
    modules = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
    tail = ".*" if pattern.endswith(".*") else ""
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    known = [f"{name}{tail}" for name in modules] + parameters
    outer = [name for name in modules if name.count(".") <= 1 and not name.rpartition(".")[2].isdigit()]
    return f"{suggest(pattern, known)} (modules: {', '.join(outer)}, each with what is in it)"
