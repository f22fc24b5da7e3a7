"""LibriSpeech: a thousand hours of English audiobooks, cut into utterances with transcripts.

    records("LibriSpeech", splits=["train-clean-100", "dev-clean", "test-clean", "test-other"])
    records("downloads")                                    # a folder with train-clean-100.tar.gz, test-clean.tar.gz
    records("hub", splits=["test-clean"])

    LibriSpeech/train-clean-100/19/198/19-198.trans.txt      19-198-0000 NORTHANGER ABBEY
    LibriSpeech/train-clean-100/19/198/19-198-0000.flac

Records of the three parts for training have the split `train`; the others keep theirs, with dev as validation:
`validation-clean`, `test-other`, ... Paper: Panayotov et al., ICASSP 2015; https://www.openslr.org/12.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data_prep.archives import NO_AUDIO_YET, FileTree, ShippedFile, records_with_audio, stem
from data_prep.choices import chosen_splits, record_split
from data_prep.dataset import hub_records, hub_source
from speechllm.data.cards import CorpusCard, Figure
from speechllm.data.records import Record
from speechllm.errors import DataError

PARTS = (
    "train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other", "test-clean", "test-other",
)  # fmt: skip
HUB = "openslr/librispeech_asr"


def records(source: str | Path, splits: Sequence[str] | None = None, lower: bool = True) -> Iterator[Record]:
    """Yield the utterances, in the order of the files.

    Args:
        source: folder, archive, folder of archives, or "hub".
        splits: the corpus's parts; all that are there if None.
        lower: transcripts in lower case. The corpus has capitals, which a text LLM knows little of.

    Raises:
        DataError: there is no transcript, one is broken, or an archive is cut short.
    """
    chosen = chosen_splits(splits, PARTS, "LibriSpeech")
    if hub := hub_source(source, HUB):
        names = {name.replace("dev", "validation").replace("-", "."): record_split(name) for name in chosen}
        for record in hub_records(hub, "all", names, {"speaker": "speaker_id"}, "en"):
            yield replace(record, text=record.text.lower() if lower else record.text)
        return
    tree = FileTree.at(source)
    wanted: dict[str, Record] = {}
    for file in tree.texts("*.trans.txt"):
        split = part_of(tree, file.name)
        if split in chosen:
            for id, text in _transcripts(file):
                text = text.lower() if lower else text
                wanted[id] = Record(id, record_split(split), "en", text, NO_AUDIO_YET, id.split("-")[0])
    if not wanted:
        raise DataError(
            f"{tree.root} has no *.trans.txt of {', '.join(chosen)}; give the folder or archives of LibriSpeech"
        )
    yield from records_with_audio(tree, ("*.flac",), wanted, stem)


def part_of(tree: FileTree, name: str) -> str:
    """Return the part of LibriSpeech or LibriTTS in which a file lies, by its folders; empty if in none."""
    parts = [part for part in PurePosixPath(tree.root.name, name).parts if part in PARTS]
    return parts[-1] if parts else ""


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="librispeech",
        title="LibriSpeech",
        summary="Read English speech at 16 kHz out of LibriVox audiobooks, cut and aligned.",
        homepage="https://www.openslr.org/12",
        licence="CC-BY-4.0",
        languages=("en",),
        tasks=("ASR", "TTS"),
        figures=(Figure("approximately 1000 hours", "https://www.openslr.org/12"),),
        papers=("Panayotov, Chen, Povey, Khudanpur: Librispeech, ICASSP 2015",),
        layout="`LibriSpeech/PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt` and `*.flac`; folder or `PART.tar.gz`",
        hub=HUB,
        example="source=LibriSpeech splits='[train-clean-100, dev-clean, test-clean, test-other]'",
        problems=(
            "Transcripts are in capitals without punctuation; read in lower case unless `lower=false`",
            "Parts are disjoint in speakers; books of LibriTTS and MLS are the same books: do not test across them",
        ),
    )


def _transcripts(file: ShippedFile) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(file.lines(), start=1):
        id, blank, text = line.partition(" ")
        if not blank or not text.strip():
            raise DataError(
                f"{file.name} line {number} is {line!r}, expected an id and its transcript: is the file whole?"
            )
        yield id, text.strip()
