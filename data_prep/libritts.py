"""LibriTTS and LibriTTS-R: audiobooks for speech synthesis, cut at sentences, with capitals and punctuation, 24 kHz.

    records("LibriTTS_R", splits=["train-clean-100", "test-clean"])
    records("hub:mythicinfinity/libritts_r", splits=["dev-clean"])

    LibriTTS/train-clean-100/103/1241/103_1241_000000_000001.wav
    LibriTTS/train-clean-100/103/1241/103_1241_000000_000001.normalized.txt    (and .original.txt)

LibriTTS-R is LibriTTS with the sound restored by a model, file for file under the same names. Prepare with a
sample rate of 24,000 for a codec of that rate. Papers: arXiv 1904.02882, arXiv 2305.18802.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.archives import NO_AUDIO_YET, FileTree, records_with_audio, stem
from data_prep.choices import chosen_splits, record_split
from data_prep.dataset import hub_records, hub_source
from data_prep.librispeech import PARTS, part_of
from speechllm.data.cards import CorpusCard, Figure
from speechllm.data.records import Record
from speechllm.errors import DataError

TEXTS = ("normalized", "original")
HUB = "mythicinfinity/libritts"


def records(source: str | Path, splits: Sequence[str] | None = None, text: str = "normalized") -> Iterator[Record]:
    """Yield the utterances, in the order of the files.

    Args:
        source: folder, archive, folder of archives, or "hub".
        splits: the corpus's parts, named as LibriSpeech's; all that are there if None.
        text: `normalized`, with numbers and abbreviations as spoken, or `original`.

    Raises:
        DataError: there is no transcript, one is broken, or an archive is cut short.
    """
    chosen = chosen_splits(splits, PARTS, "LibriTTS")
    if text not in TEXTS:
        raise DataError(f"text is {text!r}, expected one of {', '.join(TEXTS)}")
    if hub := hub_source(source, HUB):
        names = {name.replace("-", "."): record_split(name) for name in chosen}
        yield from hub_records(hub, "all", names, {"text": f"text_{text}", "speaker": "speaker_id"}, "en")
        return
    tree = FileTree.at(source)
    wanted: dict[str, Record] = {}
    for file in tree.texts(f"*.{text}.txt"):
        split = part_of(tree, file.name)
        if split in chosen:
            id = stem(file.name).removesuffix(f".{text}")
            said = " ".join(" ".join(file.lines()).split())
            wanted[id] = Record(id, record_split(split), "en", said, NO_AUDIO_YET, id.split("_")[0])
    if not wanted:
        raise DataError(
            f"{tree.root} has no *.{text}.txt of {', '.join(chosen)}; give the folder or archives of LibriTTS"
        )
    yield from records_with_audio(tree, ("*.wav",), wanted, stem)


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="libritts",
        title="LibriTTS and LibriTTS-R",
        summary="English audiobooks at 24 kHz, cut at sentences, with original and normalised text; in the R version "
        "with restored sound.",
        homepage="https://www.openslr.org/60",
        licence="CC-BY-4.0",
        licence_note="LibriTTS-R: https://www.openslr.org/141, the same licence",
        languages=("en",),
        tasks=("TTS", "ASR"),
        figures=(Figure("585 hours, 2,456 speakers", "arXiv:1904.02882, abstract"),),
        papers=("arXiv:1904.02882", "arXiv:2305.18802 (LibriTTS-R)"),
        layout="`PART/SPEAKER/CHAPTER/ID.wav`, `ID.normalized.txt` and `ID.original.txt`; folder or `PART.tar.gz`",
        hub=HUB,
        example="source=LibriTTS_R splits='[train-clean-100, dev-clean, test-clean]'",
        problems=(
            "Texts are one small file each: reading the archives is two passes over all of them",
            "On the Hub it is a copy by others; LibriTTS-R is `source=hub:mythicinfinity/libritts_r`",
            "The page of LibriTTS-R lists files whose restoration failed: filter by CER",
        ),
    )
