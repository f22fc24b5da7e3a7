"""Common Voice: sentences read aloud by volunteers, in more than a hundred languages.

    records("cv-corpus-17.0-2024-03-15-fr.tar.gz", "fr")
    records("cv-corpus-4/fr", "fr", splits=["validated"])

    cv-corpus-17.0-2024-03-15/fr/train.tsv     client_id  path  [sentence_id]  sentence  ...  locale  segment
    cv-corpus-17.0-2024-03-15/fr/clips/common_voice_fr_17299384.mp3

All releases have the columns client_id, path and sentence; others came and went. `train`, `dev` and `test` are the
published splits, disjoint in speakers; `validated` holds them and more. CoVoST 2 and CVSS read their clips with
`read_clips`. Paper: arXiv 1912.06670.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.archives import FileTree, ShippedFile, stem, with_audio
from data_prep.choices import chosen_splits, record_split
from data_prep.dataset import hub_records, hub_source
from data_prep.tsv import tsv_rows, unquoted
from speechllm.data.cards import CorpusCard
from speechllm.data.records import Record
from speechllm.errors import DataError
from speechllm.tasks import language_code

SPLITS = ("train", "dev", "test")
ALL_SPLITS = (*SPLITS, "validated", "other", "invalidated")
"`other` has clips without enough votes, `invalidated` those that were voted down."
CLIPS = ("*.mp3",)
SOME_LANGUAGES = (
    "ar", "ca", "cs", "cy", "de", "en", "eo", "es", "et", "eu", "fa", "fi", "fr", "hu", "id", "it", "ja", "ka", "lt",
    "lv", "mn", "nl", "pl", "pt", "ro", "ru", "sl", "sv", "sw", "ta", "th", "tr", "uk", "zh",
)  # fmt: skip


def records(source: str | Path, language: str, splits: Sequence[str] | None = None) -> Iterator[Record]:
    """Yield the clips of a language, in the order of the files.

    Args:
        source: a release's folder, the folder of a language in it, its archive, or hub:OWNER/NAME for a copy.
        language: locale as the release writes it ("sv-SE"), ISO code or English name.
        splits: of train, dev, test, validated, other, invalidated; the first three if None.

    Raises:
        DataError: a table is missing or broken, or an archive is cut short.
        TaskError: the language is unknown.
    """
    code = language_code(language)
    chosen = SPLITS if splits is None else chosen_splits(splits, ALL_SPLITS, "Common Voice")
    if hub := hub_source(source, ""):
        columns = {"text": "sentence", "speaker": "client_id", "id": "path"}
        names = {"validation" if name == "dev" else name: record_split(name) for name in chosen}
        yield from hub_records(hub, language, names, columns, code)
        return
    tree = FileTree.at(source)
    clips: dict[str, Clip] = {}
    for split in chosen:
        clips = read_clips(tree, language, split) | clips
    for clip, audio in with_audio(tree, CLIPS, clips, stem):
        yield Record(clip.id, record_split(clip.split), code, clip.sentence, audio, clip.speaker)


@dataclass(frozen=True)
class Clip:
    """A row of a table."""

    id: str
    "The clip's name without suffix."
    split: str
    sentence: str
    speaker: str


def read_clips(tree: FileTree, language: str, split: str) -> dict[str, Clip]:
    """Return the clips of one table of a release by id.

    Raises:
        DataError: the table is not there, is there for several languages, or is broken.
    """
    table = _table(tree, language, split)
    rows = tsv_rows(table.lines(), table.name, ("client_id", "path", "sentence"))
    clips = (Clip(stem(row["path"]), split, unquoted(row["sentence"].strip()), row["client_id"]) for row in rows)
    return {clip.id: clip for clip in clips}


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="common-voice",
        title="Common Voice",
        summary="Sentences read aloud by volunteers and checked by others, in releases that grow twice a year or more.",
        homepage="https://commonvoice.mozilla.org/",
        licence="CC0-1.0",
        licence_note="You agree not to try to find out who the speakers are",
        languages=SOME_LANGUAGES,
        tasks=("ASR", "TTS"),
        papers=("arXiv:1912.06670",),
        layout="`LOCALE/{train,dev,test,validated,other,invalidated}.tsv` and `LOCALE/clips/*.mp3`, folder or tar.gz",
        example="source=cv-corpus-17.0-2024-03-15-fr.tar.gz language=fr",
        problems=(
            "Hours differ with release and language; each release publishes its own. The languages named here are some "
            "of those that it has; any locale works whose language this package can name",
            "The splits of different releases overlap: never train on one release and test on another",
            "Transcripts are the prompts that were shown; in `other` and `invalidated` they need not be what was said",
            "A copy on the Hub is read with `source=hub:OWNER/NAME language=LOCALE`",
        ),
    )


def _table(tree: FileTree, language: str, split: str) -> ShippedFile:
    found = tree.texts(f"{split}.tsv")
    if len(found) > 1:
        # A release with several languages: one folder each.
        locales = {file.name: PurePosixPath(file.name).parent.name for file in found}
        exact = [file for file in found if locales[file.name].lower() == language.lower()]
        found = exact or [file for file in found if _code(locales[file.name]) == language_code(language)]
    if len(found) != 1:
        there = "none" if not found else ", ".join(file.name for file in found)
        raise DataError(
            f"{tree.root} must have one {split}.tsv of {language!r}, it has {there}; give the folder or the archive of "
            "one language of a Common Voice release"
        )
    return found[0]


def _code(locale: str) -> str:
    """Return what stands before the region: a locale may be of a language without a name here."""
    return locale.lower().replace("_", "-").split("-")[0]
