"""MuST-C: TED talks in English with translations, cut out of whole talks.

    records("en-de", target="de", splits=["train", "dev", "tst-COMMON"])

    en-de/data/train/txt/train.yaml      - {duration: 3.5, offset: 16.08, speaker_id: spk.1, wav: ted_1.wav}
    en-de/data/train/txt/train.en        one line a segment, in the order of the YAML
    en-de/data/train/txt/train.de
    en-de/data/train/wav/ted_1.wav

Other sets of talks in this form (MuST-Cinema, TEDx) read as well. Paper: Di Gangi et al., NAACL 2019 (N19-1202).
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

try:
    # A quarter of a million segments: minutes with the loader in pure Python.
    from yaml import CSafeLoader
except ImportError:
    from yaml import SafeLoader as CSafeLoader

from data_prep.choices import record_split
from data_prep.segments import cut
from data_prep.spoken_text import read_lines
from speechllm.data.cards import CorpusCard, Figure
from speechllm.data.records import Record, Translation
from speechllm.errors import DataError
from speechllm.tasks import language_code

SPLITS = ("train", "dev", "tst-COMMON", "tst-HE")


def records(
    source: str | Path, target: str, language: str = "en", splits: Sequence[str] | None = None
) -> Iterator[Record]:
    """Yield the segments of the talks, in the order of the YAML.

    Args:
        source: the folder of a direction, "en-de", with data/ in it.
        target: what the talks are translated into.
        language: what is spoken.
        splits: names of folders in data/; those of MuST-C that are there if None.

    Raises:
        DataError: a split or a file of it is missing, or its texts and segments are not as many.
        TaskError: a language is unknown.
    """
    spoken, written = language_code(language), language_code(target)
    data = Path(source) / "data"
    chosen = [name for name in SPLITS if (data / name).is_dir()] if splits is None else splits
    if not chosen:
        raise DataError(f"{data} has none of the folders {', '.join(SPLITS)}; give the folder of a direction, as en-de")
    for name in chosen:
        yield from _talks(data / name, name, spoken, written)


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="mustc",
        title="MuST-C",
        summary="TED talks in English, with subtitles in English and translated, aligned to the sound.",
        homepage="https://aclanthology.org/N19-1202/",
        licence="CC-BY-NC-ND-4.0",
        licence_note="TED's own: not for commercial use, nothing derived may be passed on",
        languages=("en",),
        tasks=("ASR", "AST", "MT"),
        figures=(Figure("385 to 504 hours by direction, 8 directions", "arXiv:2007.10310, section 1"),),
        papers=("Di Gangi et al.: MuST-C, NAACL 2019, N19-1202",),
        layout="`en-X/data/SPLIT/txt/SPLIT.{yaml,en,X}` and `en-X/data/SPLIT/wav/*.wav`",
        example="source=en-de target=de",
        problems=(
            "Subtitles are shortened to be read, and hold remarks such as (Applause)",
            "The directions share talks: a test set of one is in the training set of none, but check your own mixtures",
        ),
    )


def _talks(folder: Path, name: str, spoken: str, written: str) -> Iterator[Record]:
    texts = folder / "txt"
    segments = _segments(texts / f"{name}.yaml")
    ours, theirs = (read_lines(texts / f"{name}.{code}") for code in (spoken, written))
    if not len(segments) == len(ours) == len(theirs):
        raise DataError(
            f"{texts} must have as many lines in each file, it has {len(segments)} segments in {name}.yaml, "
            f"{len(ours)} lines in {name}.{spoken} and {len(theirs)} in {name}.{written}: a file is cut short"
        )
    split = record_split(name)
    for wav, group in groupby(enumerate(segments), key=lambda pair: pair[1]["wav"]):
        numbered = list(group)
        spans = [(float(s["offset"]), float(s["offset"]) + float(s["duration"])) for _, s in numbered]
        # The file's name alone: a table must not lead out of its folder.
        for (number, segment), audio in zip(numbered, cut(folder / "wav" / Path(wav).name, spans), strict=True):
            if ours[number] or theirs[number]:
                id = f"{spoken}-{written}-{name}-{number:07d}"
                translation = Translation(written, theirs[number]) if theirs[number] else None
                speaker = str(segment.get("speaker_id", ""))
                yield Record(id, split, spoken, ours[number], audio, speaker, translation=translation)


def _segments(path: Path) -> list[dict[str, Any]]:
    try:
        segments = yaml.load(path.read_bytes(), Loader=CSafeLoader)
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"cannot read {path}: {str(error).splitlines()[0]}; is the corpus whole?") from error
    needed = ("wav", "offset", "duration")
    for number, segment in enumerate(segments if isinstance(segments, list) else [None], start=1):
        missing = [key for key in needed if not isinstance(segment, dict) or key not in segment]
        if missing:
            raise DataError(f"{path} segment {number} has no {', '.join(missing)}; expected a list of segments")
    return segments
