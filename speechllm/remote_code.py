"""The Python that a checkpoint needs where speechllm is not installed: for `pipeline(..., trust_remote_code=True)`.

    export_checkpoint("runs/quickstart/checkpoint", "out")       # or speechllm export, speechllm push --remote-code
    pipeline("translation", model="out", trust_remote_code=True)                # in a process that has no speechllm

    out/  config.json            as before, and `custom_pipelines`: which class does which task
          speechllm_code/        our modules for inference, flat: speechllm.tokenizers.codec is tokenizers_codec.py
          everything else        as before

transformers copies a module of a repository and what it imports with `from .name import`, one folder deep, after it has
seen that every package imported outside of a `try` is there. So imports among our modules become relative, names that
are imported late ("speechllm.nn.rvq:RVQ" in a registry) are named once more where transformers sees them, late imports
of packages move into a `try`, and jaxtyping, whose checks only tests want, is replaced by a stub.
"""

import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import speechllm
from speechllm.errors import CheckpointError
from speechllm.hub import CODE_FOLDER, copy_checkpoint

PACKAGE = "speechllm"
ENTRY = "speechllm.pipelines.hf"
TASKS = {
    "automatic-speech-recognition": "SpeechRecognitionPipeline",
    "translation": "TextTranslationPipeline",
    "speech-translation": "SpeechTranslationPipeline",
    "speech-to-speech-translation": "SpeechToSpeechPipeline",
    "text-to-speech": "TextToSpeechPipeline",
    "text-to-audio": "TextToSpeechPipeline",
}
"Task -> class in `ENTRY`."
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
"Packages whose name on the index is not the one that is imported."
STUB = "array_shapes"
STUB_TEXT = '''"""Stands in for jaxtyping: annotations say shapes, and nothing checks them here."""

from typing import Any


class _Shaped:
    def __class_getitem__(cls, item: Any) -> Any:
        return item[0]


class Bool(_Shaped): ...


class Complex(_Shaped): ...


class Float(_Shaped): ...


class Int(_Shaped): ...
'''


def export_checkpoint(source: str | Path, folder: str | Path, *, revision: str | None = None) -> Path:
    """Write a copy of a checkpoint that carries its code, whole or not at all, and return its folder.

    Args:
        source: the checkpoint's folder or repository.
        folder: absent, empty, or a checkpoint (which is replaced).
        revision: of a repository.

    Raises:
        CheckpointError: no checkpoint there, or the folder holds something else.
    """
    return copy_checkpoint(source, folder, change=remote_code_files, revision=revision)


def remote_code_files(folder: str | Path) -> dict[str, bytes]:
    """Return what an exported checkpoint has beside or in place of its files: name -> content."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; give the folder of a whole checkpoint") from error
    impl = f"{CODE_FOLDER}/{_flat(ENTRY)}"
    config["custom_pipelines"] = {
        task: {"impl": f"{impl}.{name}", "pt": ["AutoModelForCausalLM"]} for task, name in TASKS.items()
    }
    modules, packages = vendored_modules()
    requirements = "\n".join(sorted(DISTRIBUTIONS.get(name, name) for name in packages))
    return {
        "config.json": (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
        f"{CODE_FOLDER}/requirements.txt": (requirements + "\n").encode(),
        **{f"{CODE_FOLDER}/{name}.py": text.encode() for name, text in modules.items()},
    }


def vendored_modules() -> tuple[dict[str, str], set[str]]:
    """Return flat name -> text of every module that inference may need, and the packages that they import."""
    # Of the package itself modules want nothing but the version.
    texts = {
        STUB: STUB_TEXT,
        PACKAGE: f'"""The release that this code is of."""\n\n__version__ = "{speechllm.__version__}"\n',
    }
    packages, waiting = set[str](), [ENTRY]
    while waiting:
        name = waiting.pop()
        if _flat(name) in texts:
            continue
        module = _Module(name)
        texts[_flat(name)] = module.rewritten()
        packages |= module.packages
        waiting += module.needs
    return texts, packages


def _flat(name: str) -> str:
    return name.removeprefix(f"{PACKAGE}.").replace(".", "_")


def _source(name: str) -> Path:
    path = Path(speechllm.__file__).parent.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@dataclass(frozen=True)
class _Change:
    """Text that takes the place of [start, stop) of a line (from 0)."""

    line: int
    start: int
    stop: int
    text: str


class _Module:
    """One of our modules on its way into a repository."""

    def __init__(self, name: str):
        self.text = _source(name).read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.needs: list[str] = []
        self.late: list[str] = []
        self.packages: set[str] = set()
        self.changes = [change for node in ast.walk(ast.parse(self.text)) for change in self._changes(node)]

    def rewritten(self) -> str:
        """Return the text for the repository."""
        lines = list(self.lines)
        for change in sorted(self.changes, key=lambda c: (c.line, c.start), reverse=True):
            line = lines[change.line]
            lines[change.line] = line[: change.start] + change.text + line[change.stop :]
        head = f"# Of speechllm {speechllm.__version__} (Apache-2.0), as `speechllm export` writes it.\n"
        tail = ""
        if self.late:
            tail = (
                "\n\nif False:  # imported when they are needed; named here, so that transformers fetches the files\n"
            )
            tail += "".join(f"    from .{_flat(name)} import __name__\n" for name in sorted(set(self.late)))
        return head + "\n".join(lines) + "\n" + tail

    def _changes(self, node: ast.AST) -> Iterator[_Change]:
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from self._import(node, node.module)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from self._import(node, alias.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_late(node.value):
            module, _, attribute = node.value.partition(":")
            self.needs.append(module)
            self.late.append(module)
            text = f'f"{{__package__}}.{_flat(module)}:{attribute}"'
            yield _Change(node.lineno - 1, node.col_offset, node.end_col_offset or 0, text)

    def _import(self, node: ast.Import | ast.ImportFrom, module: str) -> Iterator[_Change]:
        package, line = module.partition(".")[0], self.lines[node.lineno - 1]
        if package in sys.stdlib_module_names:
            return
        if package in (PACKAGE, "jaxtyping"):
            assert isinstance(node, ast.ImportFrom), f"{line.strip()}: only `from {package}... import` can be exported"
            if package == PACKAGE:
                self.needs.append(module)
            new = f"from .{STUB if package == 'jaxtyping' else _flat(module)} import"
            yield _Change(node.lineno - 1, node.col_offset, line.index(" import") + len(" import"), new)
            return
        self.packages.add(package)
        if node.col_offset and node.end_lineno == node.lineno:
            indent = line[: node.col_offset]
            what = line.strip()
            wrapped = f"try:  # needed only here\n{indent}    {what}\n{indent}except ImportError:\n{indent}    raise"
            yield _Change(node.lineno - 1, node.col_offset, len(line), wrapped)


def _is_late(text: str) -> bool:
    """Say whether a string names something of ours that is imported when it is asked for."""
    module, colon, attribute = text.partition(":")
    return bool(colon) and attribute.isidentifier() and module.startswith(f"{PACKAGE}.") and _source(module).is_file()
