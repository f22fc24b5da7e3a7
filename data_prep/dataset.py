"""A `datasets` dataset, from the Hub, a folder of files or `save_to_disk`, as records.

    records("my-name/my-speech", columns={"text": "sentence"}, language="fr", splits=["train", "test"])

Audio is not decoded by `datasets` (which would need torchcodec and FFmpeg): the files' bytes go into the
record as they are and are read by soundfile. Splits keep their names, and stand before the rows' ids.

Corpora that are on the Hub read themselves from there with `hub_source` and `hub_records`:

    hub_source("hub", "google/fleurs")                   # HubSource("google/fleurs")
    hub_source("hub:me/copy@v2", "google/fleurs")        # HubSource("me/copy", "v2")
    hub_source("downloads/fleurs", "google/fleurs")      # None: files of the corpus itself
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_prep.columns import ColumnMapping
from speechllm.data.records import Record
from speechllm.errors import DataError, MissingDependencyError

SAVED_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")
HUB = "hub"
PARQUET_EXPORT = "refs/convert/parquet"
"Branch in which the Hub keeps a dataset as parquet, one folder per configuration; for those that ship a script."


def records(
    source: str,
    config: str | None = None,
    splits: list[str] | None = None,
    columns: Mapping[str, str] | None = None,
    language: str = "",
    translation_language: str = "",
    streaming: bool = True,
    revision: str | None = None,
) -> Iterator[Record]:
    """Yield the rows of a dataset, split after split.

    Args:
        source: a Hub id, a folder of audio or parquet files, or a folder by `save_to_disk`.
        config: name of a configuration on the Hub.
        splits: which ones; all if None.
        columns: column by field: audio, text, language, speaker, translation, ...; see `data_prep.columns`.
        language: of all rows; not needed where a column gives it.
        translation_language: of the parallel side.
        streaming: read rows as they come instead of downloading first.
        revision: branch, tag or commit on the Hub.

    Raises:
        DataError: the dataset cannot be loaded, or has no such split or column.
        MissingDependencyError: `datasets` is not installed.
    """
    parts = _load(source, config, streaming, revision)
    chosen = list(parts) if splits is None else splits
    for name in chosen:
        if name not in parts:
            raise DataError(f"{source} has no split {name!r}; it has {', '.join(parts)}")
    for name in chosen:
        part = _undecoded(parts[name])
        mapping: ColumnMapping | None = None
        for number, row in enumerate(part, start=1):
            if mapping is None:
                mapping = ColumnMapping.of(
                    columns or {},
                    list(row),
                    f"{source} ({name})",
                    language=language,
                    translation_language=translation_language,
                    split=name,
                )
            record = mapping.record(row, number)
            # Row numbers start over in each split, and so do many datasets' own ids.
            yield record if record.id.startswith(name) else replace(record, id=f"{name}-{record.id}")


@dataclass(frozen=True)
class HubSource:
    """Where a corpus is on the Hub."""

    name: str
    revision: str | None = None


def hub_source(source: str | Path, name: str, revision: str | None = None) -> HubSource | None:
    """Return where to read a corpus from the Hub, or None if `source` is a folder or an archive.

    Args:
        source: "hub", "hub:OWNER/NAME", "hub:OWNER/NAME@REVISION", or a path.
        name: the corpus's own place on the Hub; empty if it has none.
        revision: of that place.

    Raises:
        DataError: no place is given and the corpus has none.
    """
    kind, _, other = str(source).partition(":")
    if kind != HUB:
        return None
    if not other and not name:
        raise DataError("this corpus has no place of its own on the Hub; name a copy, source=hub:OWNER/NAME, or files")
    if not other:
        return HubSource(name, revision)
    name, _, revision = other.partition("@")
    return HubSource(name, revision or None)


def hub_records(
    hub: HubSource, config: str | None, splits: Mapping[str, str], columns: Mapping[str, str], language: str
) -> Iterator[Record]:
    """Stream a corpus from the Hub; `splits` are the names of splits in records by those on the Hub.

    Raises:
        DataError: the dataset cannot be loaded, or has no such split or column.
        MissingDependencyError: `datasets` is not installed.
    """
    for theirs, ours in splits.items():
        for record in records(hub.name, config, [theirs], columns, language, revision=hub.revision):
            yield replace(record, split=ours)


def _load(source: str, config: str | None, streaming: bool, revision: str | None) -> Mapping[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError("datasets", "train", "reading Hub datasets") from error
    try:
        if any((Path(source) / name).is_file() for name in SAVED_FILES):
            found = datasets.load_from_disk(source)
        else:
            # The export has no table of configurations, but a folder of each.
            name, folder = (None, config) if revision == PARQUET_EXPORT else (config, None)
            found = datasets.load_dataset(source, name, folder, streaming=streaming, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        # RuntimeError: "Dataset scripts are no longer supported".
        reason = str(error).strip().splitlines()
        raise DataError(f"cannot load dataset {source!r}: {reason[0] if reason else type(error).__name__}") from error
    if isinstance(found, Mapping):
        return {str(name): part for name, part in found.items()}
    return {str(found.split or "train"): found}


def _undecoded(part: Any) -> Any:
    from datasets import Audio

    for name, feature in (part.features or {}).items():
        if isinstance(feature, Audio):
            part = part.cast_column(name, Audio(decode=False))
    return part
