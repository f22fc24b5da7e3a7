"""Multilingual LibriSpeech: audiobooks in eight languages, 44.5 thousand hours of English and 6 thousand of others.

    records("mls_french_opus.tar.gz", "fr")
    records("hub", "fr", splits=["dev", "test"])

    mls_french/train/transcripts.txt          10065_10039_000000 <tab> ses vers ...
    mls_french/train/audio/10065/10039/10065_10039_000000.flac      (.opus in the small version)

The paper's SoundStorm and AudioLM vocoders were trained on it. Paper: arXiv 2012.03411.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from data_prep.archives import NO_AUDIO_YET, FileTree, ShippedFile, records_with_audio, stem
from data_prep.choices import chosen_language, chosen_splits, record_split
from data_prep.dataset import hub_records, hub_source
from data_prep.tsv import tsv_rows
from speechllm.data.cards import CorpusCard, Figure
from speechllm.data.records import Record
from speechllm.errors import DataError
from speechllm.tasks import language_name

LANGUAGES = ("en", "de", "nl", "fr", "es", "it", "pt", "pl")
SPLITS = ("train", "dev", "test")
HUB, HUB_ENGLISH = "facebook/multilingual_librispeech", "parler-tts/mls_eng"


def records(source: str | Path, language: str, splits: Sequence[str] | None = None) -> Iterator[Record]:
    """Yield the utterances of a language, in the order of the files.

    Args:
        source: folder, archive, or "hub".
        language: one of eight.
        splits: of train, dev, test; all if None.

    Raises:
        DataError: a table is missing or broken, or an archive is cut short.
        TaskError: the language is unknown.
    """
    code = chosen_language(language, LANGUAGES, "MLS")
    chosen = chosen_splits(splits, SPLITS, "MLS")
    if hub := hub_source(source, HUB_ENGLISH if code == "en" else HUB):
        columns = {"text": "transcript", "speaker": "speaker_id"}
        config = None if code == "en" else language_name(code).lower()
        yield from hub_records(hub, config, {name: record_split(name) for name in chosen}, columns, code)
        return
    tree = FileTree.at(source)
    wanted: dict[str, Record] = {}
    for split in chosen:
        file = _table(tree, code, split)
        for row in tsv_rows(file.lines(), file.name, ("id", "text"), names=("id", "text")):
            id, speaker = f"{code}-{row['id']}", row["id"].split("_")[0]
            wanted[row["id"]] = Record(id, record_split(split), code, row["text"], NO_AUDIO_YET, speaker)
    yield from records_with_audio(tree, ("*.flac", "*.opus"), wanted, stem)


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="mls",
        title="Multilingual LibriSpeech (MLS)",
        summary="Read speech out of LibriVox audiobooks in eight languages, at 16 kHz.",
        homepage="https://www.openslr.org/94",
        licence="CC-BY-4.0",
        languages=tuple(sorted(LANGUAGES)),
        tasks=("ASR", "TTS"),
        figures=(Figure("about 44.5K hours of English and about 6K hours of the other languages", "arXiv:2012.03411"),),
        papers=("arXiv:2012.03411",),
        layout="`mls_LANGUAGE/{train,dev,test}/transcripts.txt` and `audio/SPEAKER/BOOK/*.flac` (or `.opus`); folder "
        "or tar.gz",
        hub=f"{HUB} ({HUB_ENGLISH} for English)",
        example="source=mls_french_opus.tar.gz language=fr",
        problems=(
            "Transcripts are in lower case without punctuation",
            "Their alignment to the audio is automatic: first and last words may be cut; filter by CER",
            "On the Hub English is a copy by others",
        ),
    )


def _table(tree: FileTree, code: str, split: str) -> ShippedFile:
    folder = f"mls_{language_name(code).lower()}"
    found = tree.texts(f"{split}/transcripts.txt")
    if len(found) > 1:
        found = [file for file in found if any(part.startswith(folder) for part in PurePosixPath(file.name).parts)]
    if len(found) != 1:
        raise DataError(f"{tree.root} must have one {split}/transcripts.txt of {folder}, it has {len(found)}")
    return found[0]
