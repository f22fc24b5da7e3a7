"""Parallel text with synthetic speech: WMT or TED lines, spoken by a TTS, become records for every task.

    records({"en": "train.tags.fr-en.en", "fr": "train.tags.fr-en.fr"}, speak="pico")
    records("news-commentary-v18.en-fr.tsv.gz", languages=["en", "fr"], speak="my_tts:speak", spoken=["en"])

AudioPaLM trained its speech-to-speech task on such data (arXiv 2306.12925). `speak` is a function from texts
in one language to audio; without it the records are text alone, for MT. Files are parallel by line, or one table with a
column a language; lines of TED's markup (<url>, <speaker>, ...) are passed over. Where `data_prep.spoken_text` chooses
and divides sentences, this reads what is there, as one split.
"""

import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from data_prep.archives import ShippedFile
from data_prep.pico import VOICES, training_speakers
from data_prep.pico_pool import speak_all
from data_prep.spoken_text import read_parallel
from data_prep.tsv import tsv_rows
from speechllm.audio import AudioSource, encode_flac, load_audio
from speechllm.data.cards import CorpusCard
from speechllm.data.records import LabelSource, Record, Translation
from speechllm.errors import DataError
from speechllm.tasks import language_code

Speak: TypeAlias = Callable[[Sequence[str], str], Sequence[AudioSource]]
"Texts and the ISO code of their language in, one audio a text out."
BATCH = 256
"Lines that are spoken at once."


def records(
    source: str | Path | Mapping[str, str | Path],
    languages: Sequence[str] | None = None,
    speak: str | Speak | None = None,
    spoken: Sequence[str] | None = None,
    split: str = "train",
    name: str | None = None,
    max_characters: int = 400,
) -> Iterator[Record]:
    """Yield a record a line, with every pair of languages.

    Args:
        source: files by language, parallel by line, or one tab-separated table; plain or .gz.
        languages: of the columns of a table, in their order.
        speak: "pico", a function, or where it is: "package.module:function".
        spoken: languages to speak; all if None.
        split: of all records.
        name: start of the ids; `split` if None.
        max_characters: longer lines are left out: no TTS reads a paragraph well.

    Raises:
        DataError: files are not parallel or cannot be read, or nothing of the kind speaks.
        TaskError: a language is unknown.
    """
    codes, lines = _parallel(source, languages)
    voice = _voice(speak)
    loud = {language_code(language) for language in (codes if spoken is None else spoken)}
    if loud - set(codes):
        raise DataError(f"spoken has {', '.join(sorted(loud - set(codes)))}, the text is in {', '.join(codes)}")
    numbered = (
        (number, texts)
        for number, texts in enumerate(lines)
        if all(texts) and not _is_markup(texts) and max(map(len, texts)) <= max_characters
    )
    while batch := list(itertools.islice(numbered, BATCH)):
        audios = [
            _spoken(voice, [texts[side] for _, texts in batch], code)
            if voice is not None and code in loud
            else [None] * len(batch)
            for side, code in enumerate(codes)
        ]
        for place, (number, texts) in enumerate(batch):
            sides = list(zip(codes, texts, (audio[place] for audio in audios), strict=True))
            yield from _records(sides, f"{name or split}-{number:08d}", split)


def pico_voices(num_speakers: int = 12) -> Speak:
    """Return SVOX Pico in pseudo-speakers, one after the other (see `data_prep.pico`)."""
    speakers = training_speakers(num_speakers)

    def speak(texts: Sequence[str], language: str) -> Sequence[AudioSource]:
        if language not in VOICES:
            raise DataError(f"Pico has no voice for {language!r}; it speaks {', '.join(VOICES)}")
        return list(speak_all(speakers[i % num_speakers].request(text, language) for i, text in enumerate(texts)))

    return speak


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="parallel-text",
        title="WMT or TED text with synthetic speech",
        summary="Any parallel text, spoken by a TTS on the sides that you choose: how AudioPaLM got speech-to-speech "
        "data out of WMT and TED.",
        homepage="https://www.statmt.org/wmt22/translation-task.html",
        licence="that of the text",
        licence_note="WMT's sets and TED's talks each have their own; the licence of the TTS holds for its speech",
        languages=(),
        tasks=("MT", "TTS", "ASR", "AST", "S2ST"),
        papers=("arXiv:2306.12925 (the idea)",),
        layout="a text a language, parallel by line, plain or .gz, with or without TED's markup; or a table with a "
        "column a language",
        example="source='{en: train.tags.fr-en.en, fr: train.tags.fr-en.fr}' speak=pico spoken='[en]'",
        problems=(
            "Speech is synthetic: a model that hears nothing else learns the synthesiser",
            "WMT's text has pairs that are no translations; filter by language",
            "Leave its test sets out of training, and each year's out of the other years'",
        ),
    )


def _parallel(
    source: str | Path | Mapping[str, str | Path], languages: Sequence[str] | None
) -> tuple[list[str], Iterator[tuple[str, ...]]]:
    if isinstance(source, Mapping):
        codes = [language_code(language) for language in source]
        return codes, iter(read_parallel(dict(zip(codes, map(Path, source.values()), strict=True))))
    if not languages:
        raise DataError(f"{source} is one table; name the languages of its columns, languages=[en, fr]")
    codes = [language_code(language) for language in languages]
    path = Path(source)
    rows = tsv_rows(ShippedFile(path.name, path).lines(), str(path), codes, names=codes)
    return codes, (tuple(" ".join(row[code].split()) for code in codes) for row in rows)


def _is_markup(texts: Sequence[str]) -> bool:
    return all(text.startswith("<") and text.endswith(">") for text in texts)


def _voice(speak: str | Speak | None) -> Speak | None:
    if speak is None or callable(speak):
        return speak
    if speak == "pico":
        return pico_voices()
    module, colon, function = speak.partition(":")
    try:
        found: Speak | None = getattr(importlib.import_module(module), function) if colon else None
    except (ImportError, AttributeError) as error:
        raise DataError(f"speak={speak}: {error}") from error
    if not callable(found):
        raise DataError(f"speak is {speak!r}, expected pico or package.module:function")
    return found


def _spoken(voice: Speak, texts: Sequence[str], code: str) -> list[bytes]:
    audios = list(voice(texts, code))
    if len(audios) != len(texts):
        raise DataError(f"the TTS gave {len(audios)} audios for {len(texts)} texts in {code!r}; expected one each")
    return [audio if isinstance(audio, bytes) else encode_flac(load_audio(audio)) for audio in audios]


def _records(sides: Sequence[tuple[str, str, bytes | None]], id: str, split: str) -> Iterator[Record]:
    if len(sides) == 1:
        ((code, text, audio),) = sides
        yield Record(f"{id}-{code}", split, code, text, audio, label_source=_source(audio))
    for (code, text, audio), (other, other_text, other_audio) in itertools.combinations(sides, 2):
        translation = Translation(other, other_text, other_audio, label_source=_source(other_audio))
        yield Record(
            f"{id}-{code}-{other}", split, code, text, audio, label_source=_source(audio), translation=translation
        )


def _source(audio: bytes | None) -> LabelSource:
    return "human" if audio is None else "synthetic"
