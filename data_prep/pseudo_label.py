"""Weak labels: what a recogniser hears in recordings that nobody has transcribed, kept in a text file.

    recogniser = whisper_recogniser("whisper-base", "fr")
    write_labels(prompts("sounds/fr_CA_f_June"), recogniser, "labels-fr.tsv")     # goes on where it stopped
    labels = read_labels("labels-fr.tsv")                                         # {"vm-goodbye": "Au revoir.", ...}
    records("radio", "fr", labels="labels-fr.tsv", whisper="whisper-base")        # label what is new, then read it all

As a corpus this is a folder (or archives) of audio in one language; a file's name without suffix is its id. A record
with such a text has label_source "pseudo": a training set may use it, a test score against it measures the agreement
with that recogniser and must say so.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from data_prep.archives import AUDIO, NO_AUDIO_YET, FileTree, records_with_audio
from speechllm.audio import Audio, load_audio
from speechllm.data.cards import CorpusCard
from speechllm.data.records import Record
from speechllm.errors import AudioError, DataError
from speechllm.tasks import language_code

Recogniser: TypeAlias = Callable[[Sequence[Audio]], list[str]]
"Audio in, one text per audio out."
MAX_NEW_TOKENS = 200
"A prompt is a few seconds long; a longer text is a recogniser that repeats itself."


def records(
    source: str | Path, language: str, labels: str | Path, whisper: str | Path | None = None, split: str = "train"
) -> Iterator[Record]:
    """Yield every audio file that has a label, marked "pseudo".

    Args:
        source: folder or archive with audio.
        language: of all of it.
        labels: file of labels "id<TAB>text"; written where `whisper` is given.
        whisper: recogniser (folder or Hub id) that labels what has no label yet before anything is read.
        split: of all records.

    Raises:
        DataError: there are no labels and no recogniser, or an archive is cut short.
        TaskError: the language is unknown.
    """
    code, tree = language_code(language), FileTree.at(source)
    if whisper is not None:
        done = set(read_labels(labels)) if Path(labels).exists() else set()
        write_labels(_unlabelled(tree, done), whisper_recogniser(whisper, code), labels)
    wanted = {
        id: Record(id, split, code, text, NO_AUDIO_YET, label_source="pseudo")
        for id, text in read_labels(labels).items()
        if text
    }
    if not wanted:
        raise DataError(f"{labels} has no labels; give whisper= to make some")
    yield from records_with_audio(tree, AUDIO, wanted, _id)


def card() -> CorpusCard:
    """Return the facts of this kind of corpus."""
    return CorpusCard(
        name="pseudo-labelled",
        title="Pseudo-labelled audio",
        summary="Recordings that nobody transcribed, with what a recogniser heard in them.",
        homepage="https://arxiv.org/abs/2306.12925",
        licence="that of the audio",
        languages=(),
        tasks=("ASR",),
        layout="audio files in folders or archives, and a file of labels, `id<TAB>text`",
        example="source=radio language=fr labels=labels-fr.tsv whisper=openai/whisper-base",
        problems=(
            "A score against such labels measures the agreement with the recogniser",
            "A recogniser invents text in silence and music: filter by characters per second and language",
        ),
    )


def write_labels(
    audios: Iterable[tuple[str, Audio]], recogniser: Recogniser, path: str | Path, batch_size: int = 8
) -> Path:
    """Append "id<TAB>text" lines to `path` for all audios that it does not name yet.

    A batch is written when it is done, so a killed run goes on from there.

    Raises:
        DataError: an id holds a tab or a line break.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_unfinished_line(path)
    done = set(read_labels(path)) if path.exists() else set()
    waiting: list[tuple[str, Audio]] = []
    with path.open("a", encoding="utf-8") as file:

        def flush() -> None:
            texts = recogniser([audio for _, audio in waiting])
            for (name, _), text in zip(waiting, texts, strict=True):
                file.write(f"{name}\t{' '.join(text.split())}\n")
            file.flush()
            waiting.clear()

        for name, audio in audios:
            if re.search(r"[\t\r\n]", name):
                raise DataError(f"id {name!r} holds a tab or a line break; rename it")
            if name not in done:
                waiting.append((name, audio))
            if len(waiting) == batch_size:
                flush()
        if waiting:
            flush()
    return path


def read_labels(path: str | Path) -> dict[str, str]:
    """Read lines "id<TAB>text" or "id: text"; lines that start with ";" or "#" and blank ones are comments.

    Raises:
        DataError: the file cannot be read, or a line has another form.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"cannot read labels {path}: {error.strerror}") from error
    labels: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith((";", "#")):
            continue
        found = re.match(r"([^\t]+)\t(.*)$", line) or re.match(r"([^\s:]+):\s*(.*)$", line)
        if found is None:
            raise DataError(f"{path} line {number} is {line!r}, expected 'id<TAB>text' or 'id: text'")
        labels[found[1].strip()] = found[2].strip()
    return labels


def whisper_recogniser(model: str | Path, language: str, window_seconds: float = 30.0) -> Recogniser:
    """Return a recogniser by a Whisper checkpoint (folder or Hub id) that is told the language; greedy.

    Whisper was trained on windows of 30 s. A shorter window costs less and a little accuracy: on 24 English prompts of
    1 to 5 s Whisper-base had WER 4.3 with 30 s, 5.8 with 10 s (a quarter of the time) and 8.7 with 6 s.

    Raises:
        DataError: an audio is longer than the window, or the window longer than 30 s.
    """
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    code = language_code(language)
    processor = WhisperProcessor.from_pretrained(str(model))
    network = WhisperForConditionalGeneration.from_pretrained(str(model), dtype=torch.float32).eval()
    encoder = network.model.encoder
    frames = round(window_seconds * 50)
    if not 0 < frames <= encoder.max_source_positions:
        raise DataError(f"window_seconds is {window_seconds}, expected more than 0 and at most 30")
    positions = encoder.embed_positions.weight[:frames].detach().clone()
    encoder.embed_positions = torch.nn.Embedding.from_pretrained(positions)
    encoder.max_source_positions = network.config.max_source_positions = frames

    def recognise(audios: Sequence[Audio]) -> list[str]:
        longest = max((audio.duration_seconds for audio in audios), default=0.0)
        if longest > window_seconds:
            raise DataError(f"an audio of {longest:.1f} s is longer than the window of {window_seconds:g} s")
        samples = [audio.resampled(16_000).samples for audio in audios]
        features = processor(samples, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
        with torch.inference_mode():
            ids = network.generate(
                features.input_features[:, :, : 2 * frames],
                attention_mask=features.attention_mask[:, : 2 * frames],
                language=code,
                task="transcribe",
                max_new_tokens=MAX_NEW_TOKENS,
            )
        return [str(text).strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]

    return recognise


def _id(name: str) -> str:
    """Return the id of a file: its name below the root, without suffix."""
    return PurePosixPath(name).with_suffix("").as_posix()


def _unlabelled(tree: FileTree, labelled: Collection[str]) -> Iterator[tuple[str, Audio]]:
    """Yield what has no label yet; what cannot be read as audio gets none."""
    for file in tree.files(*AUDIO):
        if (id := _id(file.name)) not in labelled:
            try:
                yield id, load_audio(file.content)
            except AudioError:
                continue


def _drop_unfinished_line(path: Path) -> None:
    """Cut what a killed run left behind the last line break."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
