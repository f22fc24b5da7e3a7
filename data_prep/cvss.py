"""CVSS: the English translations of CoVoST 2 as speech, so that 21 languages have speech on both sides.

    records("cvss_c_fr_en_v1.0.tar.gz", "fr", common_voice="cv-corpus-4/fr")

    cvss_c_fr_en_v1.0.tar.gz     train.tsv dev.tsv test.tsv     clip <tab> normalised translation, no header
                                 train/common_voice_fr_1.mp3.wav  dev/...  test/...
    Common Voice release 4       fr/validated.tsv, fr/clips: the source speech and its transcripts

CVSS-C has one voice for all of it, CVSS-T carries the source speaker's voice over; the texts are the same. They are
normalised as they are spoken ("fifty percent"); `covost` gives CoVoST 2's own instead. Paper: arXiv 2201.03713.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from data_prep.archives import FileTree, ShippedFile, stash_audio, with_audio
from data_prep.choices import chosen_language, chosen_splits, record_split
from data_prep.common_voice import CLIPS, Clip, read_clips
from data_prep.covost2 import INTO_ENGLISH, read_translations
from data_prep.tsv import tsv_rows
from speechllm.data.cards import CorpusCard, Figure
from speechllm.data.records import Record, Translation
from speechllm.errors import DataError

SPLITS = ("train", "dev", "test")
VOICE_OF_C = "cvss-c"
"Speaker of all English speech in CVSS-C."


def records(
    source: str | Path,
    language: str,
    common_voice: str | Path,
    splits: Sequence[str] | None = None,
    variant: str | None = None,
    covost: str | Path | None = None,
) -> Iterator[Record]:
    """Yield clips with transcript, translation and spoken translation, in the order of Common Voice's files.

    Args:
        source: folder or archive of CVSS-C or CVSS-T, one language.
        language: what is spoken; one of 21.
        common_voice: folder or archive of Common Voice release 4 in that language.
        splits: of train, dev, test; all if None.
        variant: "c" or "t"; read from the name of `source` if None.
        covost: table of CoVoST 2 (or its folder or archive) whose translations stand in the place of the normalised.

    Raises:
        DataError: a table is missing or broken, no clip has a translation, the variant is unclear, or an archive is cut
            short.
        TaskError: the language is unknown.
    """
    spoken = chosen_language(language, INTO_ENGLISH, "CVSS")
    chosen = chosen_splits(splits, SPLITS, "CVSS")
    voice = _variant(Path(source), variant)
    english, tree = FileTree.at(source), FileTree.at(common_voice)
    texts = {name: row for split in chosen for name, row in _texts(english, split).items()}
    originals = read_translations(Path(covost), spoken, "en") if covost is not None else {}
    clips = read_clips(tree, language, "validated")
    wanted: dict[str, tuple[Clip, str, str]] = {}
    for name, (split, text) in texts.items():
        if name in clips:
            wanted[name] = (clips[name], split, originals[name].text if name in originals else text)
    if not wanted:
        raise DataError(
            f"no clip of {tree.root} has a translation in {english.root}; CVSS belongs to Common Voice release 4"
        )
    with stash_audio(english, ("*.wav",), wanted, _clip_name) as speech:
        for (clip, split, text), audio in with_audio(tree, CLIPS, wanted, _clip_name):
            speaker = VOICE_OF_C if voice == "c" else clip.speaker
            translation = Translation("en", text, speech[clip.id], speaker, "synthetic")
            id = f"{clip.id}-cvss-{voice}"
            yield Record(id, record_split(split), spoken, clip.sentence, audio, clip.speaker, translation=translation)


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="cvss",
        title="CVSS-C and CVSS-T",
        summary="Speech-to-speech pairs from 21 languages into English: Common Voice clips, and CoVoST 2's "
        "translations spoken by a TTS, in one voice (C) or in that of the source speaker (T).",
        homepage="https://github.com/google-research-datasets/cvss",
        licence="CC-BY-4.0",
        licence_note="For the English side; the source clips are Common Voice's (CC0-1.0)",
        languages=tuple(sorted(INTO_ENGLISH)),
        tasks=("ASR", "AST", "S2ST", "TTS", "MT"),
        figures=(Figure("about 1,900 hours of speech on both sides together, in each version", "its README"),),
        papers=("arXiv:2201.03713", "arXiv:2007.10310 (CoVoST 2)", "arXiv:1912.06670 (Common Voice)"),
        layout="`cvss_{c,t}_X_en_v1.0.tar.gz` with `{train,dev,test}.tsv` and their folders of wav, with Common Voice "
        "release 4",
        example="source=cvss_c_fr_en_v1.0.tar.gz language=fr common_voice=cv-corpus-4/fr",
        problems=(
            "The English side is synthetic: TTS trained on it learns that synthesiser",
            "Texts are normalised as spoken; give `covost=` to learn to write numbers and names as people do",
            "From an archive, the English speech of the chosen splits is copied to the temporary folder while it runs",
            "The Hub has it with a loading script, which `datasets` runs no more",
        ),
    )


def _texts(tree: FileTree, split: str) -> dict[str, tuple[str, str]]:
    found = tree.texts(f"{split}.tsv")
    if len(found) != 1:
        there = ", ".join(file.name for file in found) or "none"
        raise DataError(f"{tree.root} must have one {split}.tsv, it has {there}; give one language of CVSS-C or CVSS-T")
    return {name: (split, text) for name, text in _rows(found[0])}


def _rows(file: ShippedFile) -> Iterator[tuple[str, str]]:
    for row in tsv_rows(file.lines(), file.name, ("path", "text"), names=("path", "text")):
        yield _clip_name(row["path"]), " ".join(row["text"].split())


def _clip_name(name: str) -> str:
    """Return the clip of a file on either side: a/common_voice_fr_1.mp3.wav -> common_voice_fr_1."""
    return PurePosixPath(name).name.split(".")[0]


def _variant(source: Path, given: str | None) -> str:
    found = re.search(r"cvss[_-]([ct])(?![a-z])", source.name.lower())
    variant = given.lower() if given is not None else found[1] if found else ""
    if variant not in ("c", "t"):
        raise DataError(
            f"variant is {given!r} and the name {source.name!r} does not say it; give variant=c or variant=t"
        )
    return variant
