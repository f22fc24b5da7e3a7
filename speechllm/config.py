"""Strict YAML configs: frozen dataclasses in, clear one-line errors out.

    @dataclass(frozen=True, kw_only=True)
    class TrainConfig:
        learning_rate: float = 3e-4
        "Peak learning rate."

    config = load_config(TrainConfig, "config.yaml", ["learning_rate=1e-4"])

An unknown key, a wrong type or a missing required key is a `ConfigError` that names the key, what
was given and the closest known key. A section that names some of its keys keeps the others as they
stand in the default of its field. Types are checked by pydantic; the dataclasses stay plain.
"""

import copy
import dataclasses
import functools
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from speechllm import __version__
from speechllm.errors import ConfigError
from speechllm.registry import suggest

T = TypeVar("T")
VERSION_KEY = "speechllm_version"
"May stand at the top of a config: the release that it was written for. `save_config` writes it."


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which a key may stand only once (plain YAML keeps the last, silently)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in mapping:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"key {key!r} stands twice (line {line}); keep one")
            mapping[key] = None
        return super().construct_mapping(node, deep=deep)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - derives from SafeLoader: plain data only


def load_config(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into `cls`, with `key.subkey=value` overrides applied on top.

    Raises:
        ConfigError: the file is missing or no mapping, a key is unknown or a value does not fit.
    """
    path = Path(path)
    try:
        data = _read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_one_line(error)}") from error
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path} holds {type(data).__name__}, expected a mapping of keys")
    data = dict(data)
    _require_our_version(data.pop(VERSION_KEY, None), path)
    return build_config(cls, apply_overrides(data, overrides), where=str(path))


def _require_our_version(written_for: Any, path: Path) -> None:
    """Refuse a config of a later release, whose keys may not mean what they mean here; patch releases are alike."""
    if written_for is None:
        return
    numbers = [re.match(r"(\d+)\.(\d+)", str(text)) for text in (written_for, __version__)]
    if numbers[0] is None:
        raise ConfigError(f"{path}: {VERSION_KEY} = {written_for!r}, expected a release such as '{__version__}'")
    theirs, ours = (tuple(map(int, number.groups())) for number in numbers if number is not None)
    if theirs > ours:
        raise ConfigError(
            f"{path} was written for speechllm {written_for}, this is {__version__}; "
            f"upgrade (pip install -U speechllm), or delete its {VERSION_KEY} if you know its keys"
        )


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of nested `data` in which each "a.b=value" (value in YAML) is set."""
    result = copy.deepcopy(dict(data))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {override!r} is not of the form key.subkey=value")
        *parents, last = key.split(".")
        node = result
        for parent in parents:
            # A section that is null or empty in the file is one without keys.
            node[parent] = {} if node.get(parent) is None else node[parent]
            node = node[parent]
            if not isinstance(node, dict):
                raise ConfigError(f"override {override!r}: {parent!r} is not a section")
        try:
            node[last] = _read_yaml(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {override!r}: the value is not valid YAML: {_one_line(error)}") from error
    return result


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def build_config(cls: type[T], data: Mapping[str, Any], where: str = "config") -> T:
    """Build the (frozen) dataclass `cls` from plain data, refusing unknown keys and wrong types."""
    try:
        return _adapter(cls).validate_python(_with_defaults(cls, data))
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(cls, error)}") from error


def _with_defaults(hint: Any, data: Any, default: Any = None) -> Any:
    """Return `data` with what it leaves out of a section taken from `default`, the value that the field would have.

    Without this, naming one key of a section would set the others to the defaults of the section's class, whatever
    the field says.
    """
    if isinstance(data, Mapping) and isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        names = [field.name for field in dataclasses.fields(hint)]
        filled = {name: getattr(default, name) for name in names} if isinstance(default, hint) else {}
        defaults = filled or {field.name: _default_of(field) for field in dataclasses.fields(hint)}
        return filled | {
            key: _with_defaults(hints[key], value, defaults.get(key)) if key in names else value
            for key, value in data.items()
        }
    arguments = typing.get_args(hint)
    if isinstance(data, Mapping) and typing.get_origin(hint) in (dict, Mapping):
        return {key: _with_defaults(arguments[1], value) for key, value in data.items()}
    if isinstance(data, list):
        return [_with_defaults(arguments[0], value) if arguments else value for value in data]
    sections = [argument for argument in arguments if dataclasses.is_dataclass(argument)]
    # X | None: a union of several sections is left to pydantic, which knows by the keys which one is meant.
    return _with_defaults(sections[0], data, default) if len(sections) == 1 else data


def _default_of(field: dataclasses.Field[Any]) -> Any:
    """Return a field's default if that is a section, else None."""
    made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    return made if dataclasses.is_dataclass(made) else None


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return the plain (JSON and YAML ready) form of a config dataclass."""
    return _adapter(type(config)).dump_python(config, mode="json")


def save_config(config: Any, path: str | Path) -> None:
    """Write a config dataclass as YAML that `load_config` reads back equal."""
    content = {VERSION_KEY: __version__, **config_to_dict(config)}
    Path(path).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@functools.cache
def _adapter(cls: type) -> TypeAdapter:
    _forbid_unknown_keys(cls)
    return TypeAdapter(cls)


def _forbid_unknown_keys(cls: Any, seen: set[Any] | None = None) -> None:
    """Mark `cls` and every dataclass in its fields so that pydantic refuses unknown keys."""
    seen = set() if seen is None else seen
    if cls in seen:
        return
    seen.add(cls)
    if isinstance(cls, type) and dataclasses.is_dataclass(cls):
        cls.__pydantic_config__ = ConfigDict(extra="forbid")  # pyright: ignore[reportAttributeAccessIssue]
        for hint in typing.get_type_hints(cls).values():
            _forbid_unknown_keys(hint, seen)
    for argument in typing.get_args(cls):
        _forbid_unknown_keys(argument, seen)


UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
"pydantic's names for a key that no field has."


def _explain(cls: type, error: ValidationError) -> str:
    # A misspelt key first: it is often why another one is missing.
    first = min(error.errors(), key=lambda found: found["type"] not in UNKNOWN_KEY)
    # pydantic puts the names of union members into the location; only field names help a user.
    place = ".".join(str(part) for part in first["loc"])
    kind = first["type"]
    if kind in UNKNOWN_KEY:
        known = _known_keys(cls, first["loc"][:-1])
        message = f"unknown key {place!r}{suggest(str(first['loc'][-1]), known)}"
        message += f" (known: {', '.join(known)})" if known else ""
    elif kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        message = f"required key {place!r} is missing"
    else:
        reason = first["msg"].removeprefix("Value error, ")
        message = f"{place or 'value'} = {first['input']!r}: {reason[:1].lower()}{reason[1:]}"
    more = error.error_count() - 1
    return message + (f" (and {more} more)" if more else "")


def _known_keys(hint: Any, location: Sequence[int | str]) -> list[str]:
    """Return the field names of the dataclass that stands at `location` inside the type `hint`.

    A location may pass through list indices and dict keys, which are no fields of their own.
    """
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not location:
            return [field.name for field in dataclasses.fields(hint)]
        return _known_keys(typing.get_type_hints(hint).get(str(location[0])), location[1:])
    for argument in typing.get_args(hint):
        for rest in (location, location[1:]):
            if found := _known_keys(argument, rest):
                return found
    return []
