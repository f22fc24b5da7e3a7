"""GigaSpeech: English podcasts, YouTube and audiobooks, 10,000 hours with transcripts, cut out of long recordings.

    records("GigaSpeech", subset="XS")                       # 10 hours to train on, with dev and test

    GigaSpeech.json       {"audios": [{"path": "audio/podcast/P0000/POD0000000025.opus", "segments": [
                              {"sid": "POD0000000025_S0000000", "begin_time": 159.0, "end_time": 167.78,
                               "text_tn": "DOUGLAS IS GOING TO BE OUR GUIDE <COMMA> ...", "subsets": ["{XL}"]}]}]}
    audio/podcast/P0000/POD0000000025.opus

The JSON has more than a gigabyte and is streamed. Segments that are no speech (<SIL>, <MUSIC>, <NOISE>, <OTHER>) are
left out, as its makers advise. Paper: arXiv 2106.06909.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.choices import chosen_splits
from data_prep.dataset import hub_records, hub_source
from data_prep.segments import cut
from speechllm.data.cards import CorpusCard, Figure
from speechllm.data.records import Record
from speechllm.errors import DataError, MissingDependencyError
from speechllm.registry import suggest

SUBSETS = {"XS": 10, "S": 250, "M": 1_000, "L": 2_500, "XL": 10_000}
"Hours to train on; each has the smaller ones in it."
SPLITS = ("train", "dev", "test")
GARBAGE = ("<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>")
MARKS = {"<COMMA>": ",", "<PERIOD>": ".", "<QUESTIONMARK>": "?", "<EXCLAMATIONPOINT>": "!"}


def records(
    source: str | Path,
    subset: str = "XS",
    splits: Sequence[str] | None = None,
    punctuation: bool = True,
    lower: bool = True,
) -> Iterator[Record]:
    """Yield the segments, in the order of GigaSpeech.json.

    Args:
        source: the folder with GigaSpeech.json and audio/, or hub:OWNER/NAME for a copy.
        subset: how much to train on.
        splits: of train, dev, test; all if None.
        punctuation: write the four tags as marks; otherwise leave them out.
        lower: transcripts in lower case. The corpus has capitals, which a text LLM knows little of.

    Raises:
        DataError: there is no such subset, or GigaSpeech.json is missing, cut short or of another form.
        MissingDependencyError: ijson is not installed.
    """
    chosen = chosen_splits(splits, SPLITS, "GigaSpeech")
    if subset not in SUBSETS:
        raise DataError(f"GigaSpeech has no subset {subset!r}{suggest(subset, SUBSETS)} (known: {', '.join(SUBSETS)})")
    if hub := hub_source(source, ""):
        columns = {"id": "segment_id"}
        for record in hub_records(hub, subset.lower(), _hub_splits(chosen), columns, "en"):
            if (text := spoken_text(record.text, punctuation, lower)) is not None:
                yield replace(record, text=text)
        return
    wanted = {f"{{{subset if split == 'train' else split.upper()}}}": split for split in chosen}
    for recording in _recordings(Path(source) / "GigaSpeech.json"):
        segments = [(segment, split) for segment in recording["segments"] if (split := _split(segment, wanted))]
        spans = [(float(segment["begin_time"]), float(segment["end_time"])) for segment, _ in segments]
        for (segment, split), audio in zip(segments, cut(Path(source) / recording["path"], spans), strict=True):
            text = spoken_text(segment["text_tn"], punctuation, lower)
            if text is not None:
                yield Record(segment["sid"], split, "en", text, audio, _speaker(segment, recording))


def spoken_text(text: str, punctuation: bool = True, lower: bool = True) -> str | None:
    """Return a transcript without tags, or None for a segment that is no speech.

    "DOUGLAS IS OUR GUIDE <COMMA> YOU WALK <PERIOD>" -> "douglas is our guide, you walk."
    """
    if any(tag in text for tag in GARBAGE):
        return None
    text = text.lower() if lower else text
    for tag, mark in MARKS.items():
        text = re.sub(rf"\s*{tag}", mark if punctuation else "", text, flags=re.IGNORECASE)
    return " ".join(text.split())


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="gigaspeech",
        title="GigaSpeech",
        summary="English audiobooks, podcasts and YouTube with transcripts aligned by machine; dev and test "
        "transcribed by professionals.",
        homepage="https://github.com/SpeechColab/GigaSpeech",
        licence="by agreement",
        licence_note="Its makers give access after you accept their terms, and do not own the recordings: read the "
        "terms before any use beyond research",
        languages=("en",),
        tasks=("ASR",),
        figures=(
            Figure(
                "10,000 hours transcribed; subsets of 10, 250, 1000, 2500 and 10000 hours", "arXiv:2106.06909, abstract"
            ),
            Figure("podcast 3,498 h, YouTube 3,845 h, audiobook 2,655 h", "its README"),
        ),
        papers=("arXiv:2106.06909",),
        layout="`GigaSpeech.json` and `audio/{audiobook,podcast,youtube}/*/*.opus`, as its download script leaves them",
        example="source=GigaSpeech subset=XS",
        problems=(
            "XL has segments with a word error rate of up to 4 % in the makers' validation, the smaller subsets of 0",
            "Transcripts are in capitals with tags for four marks; read in lower case with marks by default",
            "Most segments have no speaker (`N/A`), so a speaker leak between splits cannot be seen",
        ),
    )


def _recordings(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import ijson
    except ImportError as error:
        raise MissingDependencyError("ijson", "corpora", "streaming GigaSpeech.json") from error
    found = False
    try:
        with path.open("rb") as file:
            for recording in ijson.items(file, "audios.item", use_float=True):
                found = True
                _require(recording, ("path", "segments"), path)
                if PurePosixPath(recording["path"]).is_absolute() or ".." in PurePosixPath(recording["path"]).parts:
                    raise DataError(f"{path} names {recording['path']!r}, which lies outside of the corpus")
                for segment in recording["segments"]:
                    _require(segment, ("sid", "begin_time", "end_time", "text_tn", "subsets"), path)
                yield recording
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give the folder in which it lies") from error
    except ijson.JSONError as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path} is cut short or no JSON: {reason}; download it again") from error
    if not found:
        raise DataError(f"{path} has no audios, expected the GigaSpeech.json of the corpus")


def _require(item: Any, keys: Sequence[str], path: Path) -> None:
    missing = [key for key in keys if not isinstance(item, dict) or key not in item]
    if missing:
        raise DataError(f"{path} has an entry without {', '.join(missing)}; expected the GigaSpeech.json of the corpus")


def _split(segment: dict[str, Any], wanted: dict[str, str]) -> str | None:
    split = next((wanted[mark] for mark in segment["subsets"] if mark in wanted), None)
    return "validation" if split == "dev" else split


def _speaker(segment: dict[str, Any], recording: dict[str, Any]) -> str:
    names = (segment.get("speaker"), recording.get("speaker"))
    return next((name for name in names if name and name != "N/A"), "")


def _hub_splits(chosen: Sequence[str]) -> dict[str, str]:
    names = ["validation" if name == "dev" else name for name in chosen]
    return {name: name for name in names}
