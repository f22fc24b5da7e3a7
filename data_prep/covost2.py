"""CoVoST 2: Common Voice clips with translations, from 21 languages into English and from English into 15.

    records("cv-corpus-4/fr", "fr")                                   # fr -> en; translations lie in the same folder
    records("cv-corpus-4/en.tar.gz", "en", target="de", translations="covost_v2.en_de.tsv.tar.gz")

    covost_v2.fr_en.tsv          path  translation  split              split: train, train_covost, dev, test, ...
    fr/validated.tsv, fr/clips   Common Voice release 4 (2019-12-10), which has the speech and the transcripts

The published split: `train` and `train_covost` are for training, `dev` and `test` are as they are, other marks are left
out. Tables as made by the corpus's own script, covost_v2.fr_en.train.tsv, are read too. Paper: arXiv 2007.10310.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.archives import FileTree, ShippedFile, stem, with_audio
from data_prep.choices import chosen_language, chosen_splits, record_split
from data_prep.common_voice import CLIPS, Clip, read_clips
from data_prep.tsv import tsv_rows
from speechllm.data.cards import CorpusCard, Figure
from speechllm.data.records import Record, Translation
from speechllm.errors import DataError

INTO_ENGLISH = (
    "fr", "de", "es", "ca", "it", "ru", "zh", "pt", "fa", "et", "mn", "nl", "tr", "ar", "sv", "lv", "sl", "ta", "ja",
    "id", "cy",
)  # fmt: skip
FROM_ENGLISH = ("de", "tr", "fa", "sv", "mn", "zh", "cy", "ca", "sl", "et", "id", "ar", "ta", "lv", "ja")
SPLITS = ("train", "dev", "test")
_MARKS = {"train": "train", "train_covost": "train", "dev": "dev", "test": "test"}
_SHIPPED = {"zh": "zh-CN", "sv": "sv-SE"}
"How the tables write a language, where it is not the ISO code."


def records(
    source: str | Path,
    language: str,
    target: str = "en",
    splits: Sequence[str] | None = None,
    translations: str | Path | None = None,
) -> Iterator[Record]:
    """Yield clips with transcript and translation, in the order of the files.

    Args:
        source: folder or archive of Common Voice release 4 in the spoken language.
        language: what is spoken; English, or one of the 21.
        target: what it is translated into; English, or one of the 15 if English is spoken.
        splits: of train, dev, test; all if None.
        translations: the table covost_v2.X_Y.tsv, its tar.gz or its folder; looked for in `source` if None.

    Raises:
        DataError: there is no such direction, a table is missing or broken, no translation fits the clips, or an
            archive is cut short.
        TaskError: a language is unknown.
    """
    spoken, written = chosen_direction(language, target)
    chosen = chosen_splits(splits, SPLITS, "CoVoST 2")
    tree = FileTree.at(source)
    found = read_translations(Path(translations) if translations is not None else tree.root, spoken, written)
    # Tables by the corpus's own script have the transcript with them.
    clips = {} if all(row.clip for row in found.values()) else read_clips(tree, _shipped(spoken), "validated")
    wanted: dict[str, tuple[Clip, Translated]] = {}
    for name, row in found.items():
        clip = row.clip or clips.get(name)
        if clip is not None and row.split in chosen:
            wanted[name] = (clip, row)
    if not wanted:
        raise DataError(
            f"no clip of {tree.root} has a translation in the splits {', '.join(chosen)}; CoVoST 2 belongs to Common "
            "Voice release 4 (2019-12-10)"
        )
    for (clip, row), audio in with_audio(tree, CLIPS, wanted, stem):
        split, id = record_split(row.split), f"{clip.id}-{written}"
        translation = Translation(written, row.text)
        yield Record(id, split, spoken, clip.sentence, audio, clip.speaker, translation=translation)


@dataclass(frozen=True)
class Translated:
    """A row of a table of translations."""

    text: str
    split: str
    "train, dev or test."
    clip: Clip | None
    "Where the table has the transcript too."


def chosen_direction(language: str, target: str) -> tuple[str, str]:
    """Return the ISO codes of a direction that CoVoST 2 has.

    Raises:
        DataError: it does not have it.
        TaskError: a language is unknown.
    """
    spoken = chosen_language(language, {"en", *INTO_ENGLISH}, "CoVoST 2")
    if spoken == "en":
        return spoken, chosen_language(target, FROM_ENGLISH, "CoVoST 2 from English")
    return spoken, chosen_language(target, ("en",), f"CoVoST 2 from {spoken!r}")


def read_translations(place: Path, spoken: str, written: str) -> dict[str, Translated]:
    """Return the translations of a direction by clip, with their split.

    Args:
        place: the table, an archive, or a folder in which it lies.
        spoken: ISO code of the speech.
        written: ISO code of the translations.

    Raises:
        DataError: there is no table, or it is broken.
    """
    name = f"covost_v2.{_shipped(spoken)}_{_shipped(written)}"
    if place.is_file() and place.name.endswith(".tsv"):
        files = [ShippedFile(place.name, place)]
    else:
        files = FileTree.at(place).texts(f"{name}.tsv") or FileTree.at(place).texts(f"{name}.*.tsv")
    if not files:
        raise DataError(
            f"{place} has no {name}.tsv; get {name}.tsv.tar.gz from the CoVoST 2 page and give it as translations="
        )
    return {key: row for file in files for key, row in _rows(file)}


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="covost2",
        title="CoVoST 2",
        summary="Translations of Common Voice clips: 21 languages into English, English into 15.",
        homepage="https://github.com/facebookresearch/covost",
        licence="CC0-1.0",
        licence_note="For the data; the code in its repository is CC-BY-NC-4.0",
        languages=tuple(sorted(("en", *INTO_ENGLISH))),
        tasks=("ASR", "AST", "MT"),
        figures=(Figure("2,880 hours of speech, 78K speakers", "arXiv:2007.10310, section 1"),),
        papers=("arXiv:2007.10310", "arXiv:1912.06670 (Common Voice)"),
        layout="`covost_v2.X_Y.tsv` (as shipped, in a tar.gz, or split by its script), with Common Voice release 4",
        example="source=cv-corpus-4/fr language=fr target=en translations=covost_v2.fr_en.tsv.tar.gz",
        problems=(
            "Needs release 4 of Common Voice (2019-12-10): clips of other releases match in part only",
            "Languages are of very different size, some have an hour or two to train on: mix with a temperature",
            "The Hub has its tables with a loading script, which `datasets` runs no more",
        ),
    )


def _rows(file: ShippedFile) -> Iterator[tuple[str, Translated]]:
    by_script = _script_split(file.name)
    needed = ("path", "translation", "split") if by_script is None else ("path", "sentence", "translation", "client_id")
    for row in tsv_rows(file.lines(), file.name, needed, escape="\\"):
        name, text = stem(row["path"]), " ".join(row["translation"].split())
        split = by_script or _MARKS.get(row["split"])
        if split is None or not text:
            continue
        clip = Clip(name, split, row["sentence"].strip(), row["client_id"]) if by_script else None
        yield name, Translated(text, split, clip)


def _script_split(name: str) -> str | None:
    """Return the split in the name of a table made by the corpus's script: covost_v2.fr_en.dev.tsv -> dev."""
    last = name.removesuffix(".tsv").rsplit(".", 1)[-1]
    return last if last in SPLITS else None


def _shipped(code: str) -> str:
    return _SHIPPED.get(code, code)
