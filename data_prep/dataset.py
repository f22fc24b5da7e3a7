"""A `datasets` dataset, from the Hub, a folder of files or `save_to_disk`, as records.

    records("my-name/my-speech", columns={"text": "sentence"}, language="fr", splits=["train", "test"])

Audio is not decoded by `datasets` (which would need torchcodec and FFmpeg): the files' bytes go into the
record as they are and are read by soundfile. Splits keep their names, and stand before the rows' ids.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.columns import ColumnMapping
from speechllm.data.records import Record
from speechllm.errors import DataError, MissingDependencyError

SAVED_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")


def records(
    source: str,
    config: str | None = None,
    splits: list[str] | None = None,
    columns: Mapping[str, str] | None = None,
    language: str = "",
    translation_language: str = "",
    streaming: bool = True,
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

    Raises:
        DataError: the dataset cannot be loaded, or has no such split or column.
        MissingDependencyError: `datasets` is not installed.
    """
    parts = _load(source, config, streaming)
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


def _load(source: str, config: str | None, streaming: bool) -> Mapping[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError("datasets", "train", "reading Hub datasets") from error
    try:
        if any((Path(source) / name).is_file() for name in SAVED_FILES):
            found = datasets.load_from_disk(source)
        else:
            found = datasets.load_dataset(source, config, streaming=streaming)
    except (OSError, ValueError) as error:
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
