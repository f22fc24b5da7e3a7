"""Anything of ours on the Hub: checkpoints, adapters, tokenizers, codecs, acoustic stages, corpora and their tokens.

    what_is("runs/quickstart/codec")                                   # Content.PART
    push_folder("runs/quickstart/codec", "me/codec")                   # one commit, private
    load_codec(fetch_folder("me/codec", revision="v1"))                # whole, or an error

    push_folder("runs/quickstart/corpus", "me/corpus")                 # a dataset; every shard is verified first
    read_corpus(fetch_folder("me/corpus", Content.CORPUS), "train")

What is sent is looked at first, and what arrives again: a folder that lacks a file, or holds pickled weights, is
refused.
"""

import hashlib
import json
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from speechllm.data.shards import MANIFEST_FILE as SHARDS_FILE
from speechllm.data.shards import read_manifest
from speechllm.errors import CheckpointError, DataError
from speechllm.hub import SAFE_FILES, check_safe, checkpoint_folder, push_checkpoint
from speechllm.processor import MANIFEST_FILE
from speechllm.repository import CARD_FILE, REPOSITORY, RepositoryKind, fetch_repository, push_repository

DATA_FILES = ["*.parquet", "*.json", "*.md"]
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class Content(Enum):
    """What a folder holds."""

    CHECKPOINT = "a checkpoint"
    ADAPTER = "adapters"
    PART = "a tokenizer, codec or acoustic stage"
    CORPUS = "a prepared corpus"
    TOKENS = "a tokenized corpus"

    @property
    def repository_kind(self) -> RepositoryKind:
        """Where it goes on the Hub."""
        return "dataset" if self in (Content.CORPUS, Content.TOKENS) else "model"

    @property
    def patterns(self) -> list[str]:
        """The files that are shared."""
        return DATA_FILES if self.repository_kind == "dataset" else SAFE_FILES


def what_is(folder: str | Path) -> Content:
    """Return what a folder holds, after a look at whether it is whole.

    Raises:
        CheckpointError: nothing of ours, or not all of it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}; give the folder of what is to be shared")
    if (folder / MANIFEST_FILE).is_file():
        checkpoint_folder(folder)
        return Content.CHECKPOINT
    if (folder / SHARDS_FILE).is_file():
        return _corpus(folder)
    check_safe(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        _require(folder, [ADAPTER_WEIGHTS], "adapters")
        return Content.ADAPTER
    if (folder / "config.json").is_file() and {"kind", "type"} & _json(folder / "config.json").keys():
        # Stages are one folder, or one folder for each of several models.
        if not any(folder.rglob("*.safetensors")):
            _require(folder, ["model.safetensors"], Content.PART.value)
        return Content.PART
    raise CheckpointError(
        f"{folder} holds nothing that speechllm makes: expected a checkpoint ({MANIFEST_FILE}), adapters "
        f"({ADAPTER_CONFIG}), a tokenizer, codec or acoustic stage (a config.json that says what it is), or shards "
        f"({SHARDS_FILE})"
    )


def push_folder(
    folder: str | Path, repo_id: str, *, private: bool = True, token: str | None = None, card: str | None = None
) -> str:
    """Upload a folder of any content in one commit and return its address; see `push_checkpoint`.

    Raises:
        CheckpointError: nothing of ours, not all of it, or the Hub cannot be reached or refuses.
    """
    content, folder = what_is(folder), Path(folder)
    if content is Content.CHECKPOINT:
        return push_checkpoint(folder, repo_id, private=private, token=token, card=card)
    files: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and any(path.match(p) for p in content.patterns)
    }
    if card is not None:
        files[CARD_FILE] = card.encode()
    return push_repository(
        files, repo_id, replaces=content.patterns, private=private, token=token, kind=content.repository_kind
    )


def fetch_folder(
    source: str | Path,
    content: Content = Content.PART,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
) -> Path:
    """Return the folder of what was shared, downloaded if `source` is a repository; whole, or an error.

    Args:
        source: a local folder, or "name/repository".
        content: what it has to be.
        revision: branch, tag or commit on the Hub.
        token: of the Hub; None takes the one of `hf auth login` or HF_TOKEN.

    Raises:
        CheckpointError: it cannot be fetched, is something else, or is not whole.
    """
    folder = Path(source)
    if not folder.exists() and REPOSITORY.fullmatch(str(source)):
        folder = fetch_repository(
            str(source), content.patterns, revision=revision, token=token, kind=content.repository_kind
        )
    found = what_is(folder)
    if found is not content:
        raise CheckpointError(f"{source} holds {found.value}, expected {content.value}")
    return folder


def _corpus(folder: Path) -> Content:
    kind = str(_json(folder / SHARDS_FILE).get("kind"))
    contents = {"records": Content.CORPUS, "tokens": Content.TOKENS}
    if kind not in contents:
        raise CheckpointError(f"{folder / SHARDS_FILE} lists {kind!r}, expected one of {', '.join(contents)}")
    try:
        manifest = read_manifest(folder, kind)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if away := [shard.file for shard in manifest.shards if Path(shard.file).name != shard.file]:
        raise CheckpointError(f"{folder / SHARDS_FILE} names {away[0]!r}, which leads out of the folder")
    _require(folder, [shard.file for shard in manifest.shards], contents[kind].value)
    for shard in manifest.shards:
        with (folder / shard.file).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                raise CheckpointError(f"{folder / shard.file} is not what {SHARDS_FILE} says; make or fetch it again")
    return contents[kind]


def _require(folder: Path, names: Sequence[str], what: str) -> None:
    missing = next((name for name in names if not (folder / name).is_file()), None)
    if missing is not None:
        raise CheckpointError(f"{folder} holds {what} but not {missing}; give or fetch the whole folder")


def _json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}
