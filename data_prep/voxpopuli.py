"""VoxPopuli: speeches of the European Parliament with transcripts, and with their interpretation into 15 languages.

    records("voxpopuli", "fr")                          # transcribed speech
    records("voxpopuli", "fr", target="en")             # with the interpreter's speech

    transcribed_data/fr/asr_train.tsv      id  raw_text  normalized_text  speaker_id  split  gender ...
    transcribed_data/fr/2009/20090112-0900-PLENARY-...-fr_20090112-....ogg
    transcribed_data/fr/en/s2s.tsv         src_id  src_text  src_speaker_id  tgt_id  tgt_text
    transcribed_data/fr/en/2009/....ogg

That is what the corpus's own scripts write (s2s_ref.tsv has what people transcribed of the interpretation). The files
on the Hub, data/fr/asr_train.tsv with data/fr/train/train_part_0.tar.gz, are read too. Interpretation has no split of
its own: it takes that of the source utterance, and `train` where that was not transcribed.
Paper: arXiv 2101.00390.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from data_prep.archives import (
    AUDIO,
    NO_AUDIO_YET,
    FileTree,
    ShippedFile,
    records_with_audio,
    stash_audio,
    stem,
    with_audio,
)
from data_prep.choices import chosen_language, chosen_splits, record_split
from data_prep.tsv import tsv_rows
from speechllm.data.cards import CorpusCard, Figure
from speechllm.data.records import Record, Translation
from speechllm.errors import DataError

TRANSCRIBED = (
    "en", "de", "fr", "es", "pl", "it", "ro", "hu", "cs", "nl", "fi", "hr", "sk", "sl", "et", "lt",
)  # fmt: skip
INTERPRETED = ("en", "de", "fr", "es", "pl", "it", "ro", "hu", "cs", "nl", "fi", "sk", "sl", "lt", "da")
SPLITS = ("train", "dev", "test")
TEXTS = ("normalized_text", "raw_text")


def records(
    source: str | Path,
    language: str,
    target: str | None = None,
    splits: Sequence[str] | None = None,
    text: str = "normalized_text",
) -> Iterator[Record]:
    """Yield transcribed utterances, or with `target` those that were interpreted, in the order of the files.

    Args:
        source: folder or archive.
        language: what is spoken; one of 16.
        target: language of the interpretation; one of 15.
        splits: of train, dev, test; all if None.
        text: which column is the transcript. `raw_text` has capitals and punctuation and is empty for some.

    Raises:
        DataError: a table is missing or broken, or an archive is cut short.
        TaskError: a language is unknown.
    """
    spoken = chosen_language(language, TRANSCRIBED, "VoxPopuli")
    chosen = chosen_splits(splits, SPLITS, "VoxPopuli")
    if text not in TEXTS:
        raise DataError(f"text is {text!r}, expected one of {', '.join(TEXTS)}")
    tree = FileTree.at(source)
    if target is None:
        yield from _transcribed(tree, spoken, chosen, text)
    else:
        yield from _interpreted(tree, spoken, chosen_language(target, INTERPRETED, "VoxPopuli"), chosen)


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="voxpopuli",
        title="VoxPopuli",
        summary="Speeches of the European Parliament, 2009 to 2020, transcribed in 16 languages, with the "
        "interpreters' speech in 15.",
        homepage="https://github.com/facebookresearch/voxpopuli",
        licence="CC0-1.0",
        licence_note="See also the European Parliament's legal notice for the raw recordings",
        languages=tuple(sorted({*TRANSCRIBED, *INTERPRETED})),
        tasks=("ASR", "S2ST", "AST"),
        figures=(
            Figure("1,791 hours transcribed, 4,295 speakers, in 16 languages", "its README"),
            Figure("17.3K hours of interpretation in 15x15 directions", "its README"),
        ),
        papers=("arXiv:2101.00390",),
        layout="`transcribed_data/X/asr_{train,dev,test}.tsv` and `X/YEAR/*.ogg`; `X/Y/s2s.tsv` and `X/Y/YEAR/*.ogg`; "
        "or the files on the Hub, `data/X/asr_*.tsv` and `data/X/*/*.tar.gz`",
        example="source=voxpopuli/transcribed_data language=fr",
        problems=(
            "Interpretation is no translation: it leaves out, sums up and comes late; filter by length and language",
            "Interpreters' speech has a transcript for part of en, es and fr only (`s2s_ref.tsv`); else no text",
            "`raw_text` is empty for some utterances",
            "Lithuanian and Estonian have 2 and 3 hours",
            "The Hub has it with a loading script, which `datasets` runs no more; get its files: "
            "`hf download facebook/voxpopuli --repo-type dataset --include 'data/fr/*'`",
        ),
    )


def _transcribed(tree: FileTree, spoken: str, chosen: Sequence[str], text: str) -> Iterator[Record]:
    wanted: dict[str, Record] = {}
    for split in chosen:
        for row in _asr_rows(tree, spoken, split, text):
            record = Record(row["id"], record_split(split), spoken, row[text], NO_AUDIO_YET, row["speaker_id"])
            wanted.setdefault(record.id, record)
    yield from records_with_audio(tree, AUDIO, wanted, stem)


def _interpreted(tree: FileTree, spoken: str, target: str, chosen: Sequence[str]) -> Iterator[Record]:
    split_of: dict[str, str] = {}
    for split in SPLITS:
        split_of |= {row["id"]: split for row in _asr_rows(tree, spoken, split, "normalized_text", missing_ok=True)}
    wanted: dict[str, dict[str, str]] = {}
    for row in _s2s_rows(tree, spoken, target):
        if split_of.get(row["src_id"], "train") in chosen:
            wanted[row["src_id"]] = row
    targets = {row["tgt_id"] for row in wanted.values()}
    with stash_audio(tree, AUDIO, targets, stem) as speech:
        for row, audio in with_audio(tree, AUDIO, wanted, stem):
            split = record_split(split_of.get(row["src_id"], "train"))
            translation = Translation(target, row["tgt_text"], speech[row["tgt_id"]])
            id = f"{row['src_id']}-{target}"
            yield Record(id, split, spoken, row["src_text"], audio, row["src_speaker_id"], translation=translation)


def _asr_rows(tree: FileTree, spoken: str, split: str, text: str, missing_ok: bool = False) -> Iterator[dict[str, str]]:
    name = f"asr_{split}.tsv"
    found = _below(tree.texts(name), spoken)
    if not found and not missing_ok:
        raise DataError(
            f"{tree.root} has no {spoken}/{name}; run voxpopuli.get_asr_data, or get the files from the Hub"
        )
    for file in found:
        yield from tsv_rows(file.lines(), file.name, ("id", text, "speaker_id"))


def _s2s_rows(tree: FileTree, spoken: str, target: str) -> Iterator[dict[str, str]]:
    # What people transcribed is better aligned, so it goes first.
    for name in ("s2s_ref.tsv", "s2s.tsv"):
        for file in tree.texts(f"{spoken}/{target}/{name}"):
            yield from tsv_rows(file.lines(), file.name, ("src_id", "src_text", "src_speaker_id", "tgt_id", "tgt_text"))
            return
    raise DataError(
        f"{tree.root} has no {spoken}/{target}/s2s.tsv; run voxpopuli.get_s2s_data --source-lang {spoken} "
        f"--target-lang {target}"
    )


def _below(files: Sequence[ShippedFile], language: str) -> list[ShippedFile]:
    """Return the files of one language; all where the root is that of the language itself."""
    if all(len(PurePosixPath(file.name).parts) == 1 for file in files):
        return list(files)
    return [file for file in files if PurePosixPath(file.name).parent.name == language]
