"""Recorded human speech in parallel: the voice prompts of the Asterisk telephone exchange in en, es and fr.

    folder = download_asterisk("asterisk/")                       # on Debian and its like: three packages, 34 MB
    for record in records(folder, ("en", "fr"), transcripts={"en": "core-sounds-en.txt"}): ...

One woman per language (en and es: Allison Smith, fr: June Wallack) says the same prompts; a prompt's file
name is its id in every language. About 560 prompts, half an hour, per language, 16 kHz G.722. By hand:

    apt-get download asterisk-core-sounds-{en,es,fr}-g722         # or fetch the .deb files by hand
    for f in *.deb; do dpkg -x $f asterisk/; done

The recordings are CC BY-SA 3.0 (usr/share/doc/asterisk-core-sounds-*/copyright); they are not part of this
package. The English transcripts are `core-sounds-en.txt` in the source package asterisk-core-sounds (lines
"id: text"). Spanish and French have none: make weak labels with `data_prep.pseudo_label` and pass them as
`weak_labels`; they are marked "pseudo".
"""

import hashlib
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.pseudo_label import read_labels
from speechllm.audio import Audio, encode_flac
from speechllm.data.cards import CorpusCard
from speechllm.data.records import LabelSource, Record, Split, Translation
from speechllm.errors import AudioError, DataError, MissingDependencyError
from speechllm.tasks import language_code

LICENSE = "CC-BY-SA-3.0"
PACKAGES = tuple(f"asterisk-core-sounds-{language}-g722" for language in ("en", "es", "fr"))
SAMPLE_RATE = 16_000
"Of G.722 audio, in Hz."
NO_SPEECH = ("silence/", "beep", "ascending-2tone", "descending-2tone")
"Prompts that are tones or silence, by the start of their ids."


def records(
    folder: str | Path,
    languages: Sequence[str] = ("en", "fr"),
    transcripts: Mapping[str, str | Path] | None = None,
    weak_labels: Mapping[str, str | Path] | None = None,
    test_fraction: float = 0.15,
    validation_fraction: float = 0.05,
) -> Iterator[Record]:
    """Yield the prompts, one record per pair of languages, and alone those that only one language has.

    Args:
        folder: where the packages were extracted.
        languages: one or more of en, es, fr.
        transcripts: by language, a file of texts by people ("id: text" or "id<TAB>text").
        weak_labels: the same for texts by a recogniser; used where `transcripts` has nothing.
        test_fraction: share of prompts held out as `test`, chosen by a hash of the id: the same in all languages.
        validation_fraction: share held out as `validation`.

    Raises:
        DataError: a language's folder or a label file is not there.
        MissingDependencyError: PyAV, which decodes G.722, is not installed.
    """
    codes = list(dict.fromkeys(language_code(language) for language in languages))
    sides = {
        code: _Side.find(Path(folder), code, (transcripts or {}).get(code), (weak_labels or {}).get(code))
        for code in codes
    }
    for name in sorted({name for side in sides.values() for name in side.files}):
        if name.startswith(NO_SPEECH):
            continue
        where = _split_of(name, test_fraction, validation_fraction)
        spoken = {code: side.utterance(name) for code, side in sides.items() if name in side.files}
        if len(spoken) == 1:
            ((code, alone),) = spoken.items()
            yield _record(f"{name}-{code}", where, code, alone)
        for code, other in itertools.combinations(spoken, 2):
            translation = Translation(other, *spoken[other])
            yield _record(f"{name}-{code}-{other}", where, code, spoken[code], translation)


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="asterisk",
        title="Asterisk voice prompts",
        summary="The prompts of the Asterisk telephone exchange, said by one woman a language, parallel by file name.",
        homepage="https://downloads.asterisk.org/pub/telephony/sounds/",
        licence=LICENSE,
        licence_note="usr/share/doc/asterisk-core-sounds-*/copyright in the packages",
        languages=("en", "es", "fr"),
        tasks=("ASR", "AST", "S2ST", "TTS", "MT"),
        layout="`en_US_f_Allison/*.g722` and so on, extracted from the Debian packages asterisk-core-sounds-*-g722",
        example="folder=asterisk languages='[en, fr]'",
        problems=(
            "Half an hour a language: enough to see that a path works, not to train on",
            "English alone has transcripts; others need labels by a recogniser (`data_prep/pseudo_label.py`)",
            "Several names hold the same sentence: hold texts apart with `data_prep.spoken_form.held_apart`",
        ),
    )


def prompts(folder: str | Path) -> Iterator[tuple[str, Audio]]:
    """Yield (id, audio) of all spoken prompts in one language's folder, for `write_labels`."""
    for name, path in _files(Path(folder)).items():
        if not name.startswith(NO_SPEECH):
            yield name, decode_g722(path)


def language_folder(folder: str | Path, language: str) -> Path:
    """Return the folder of one language's prompts below the folder where the packages were extracted.

    Raises:
        DataError: there is none.
    """
    code = language_code(language)
    found = sorted(path.parent for path in Path(folder).rglob(f"{code}_*/vm-goodbye.g722"))
    if not found:
        raise DataError(
            f"no {code}_*/*.g722 below {folder}; extract the package asterisk-core-sounds-{code}-g722 there, "
            "or call download_asterisk"
        )
    return found[0]


def decode_g722(path: str | Path) -> Audio:
    """Decode a raw G.722 file.

    Raises:
        AudioError: the file is empty or cannot be decoded.
        MissingDependencyError: PyAV is not installed.
    """
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise MissingDependencyError("av", "recorded", "reading G.722 recordings") from error
    try:
        with av.open(str(path), format="g722") as container:
            frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    except (FFmpegError, OSError) as error:
        raise AudioError(f"{path} cannot be decoded as G.722: {error}") from error
    if not frames:
        raise AudioError(f"{path} is empty: it holds no samples")
    return Audio(np.concatenate(frames).astype(np.float32) / 32768, SAMPLE_RATE)


def download_asterisk(folder: str | Path, packages: Sequence[str] = PACKAGES) -> Path:
    """Fetch the Debian packages with apt and extract them into `folder`; nothing is installed.

    Raises:
        DataError: apt-get or dpkg is not there, or one of them fails.
    """
    folder = Path(folder)
    for command in ("apt-get", "dpkg"):
        if shutil.which(command) is None:
            raise DataError(
                f"{command} is not on this system; get {', '.join(packages)} by hand, see the docs of this file"
            )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        _run(["apt-get", "download", *packages], downloads)
        for package in sorted(Path(downloads).glob("*.deb")):
            _run(["dpkg", "-x", str(package), str(folder.resolve())], downloads)
    return folder


@dataclass(frozen=True)
class _Side:
    """The prompts of one language, with what is known of their texts."""

    speaker: str
    files: Mapping[str, Path]
    transcripts: Mapping[str, str]
    weak_labels: Mapping[str, str]

    @classmethod
    def find(
        cls, folder: Path, language: str, transcripts: str | Path | None, weak_labels: str | Path | None
    ) -> "_Side":
        place = language_folder(folder, language)
        labels = [read_labels(path) if path is not None else {} for path in (transcripts, weak_labels)]
        return cls(place.name, _files(place), *labels)

    def utterance(self, name: str) -> tuple[str, bytes, str, LabelSource]:
        """Return text, FLAC bytes, speaker and the source of the text."""
        text, source = self.transcripts.get(name, ""), "human"
        if not text and self.weak_labels.get(name):
            text, source = self.weak_labels[name], "pseudo"
        return text, encode_flac(decode_g722(self.files[name])), self.speaker, source


def _record(
    name: str,
    split: Split,
    language: str,
    utterance: tuple[str, bytes, str, LabelSource],
    translation: Translation | None = None,
) -> Record:
    text, audio, speaker, source = utterance
    return Record(name, split, language, text, audio, speaker, source, translation)


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.g722"))}


def _split_of(name: str, test_fraction: float, validation_fraction: float) -> Split:
    """Place a prompt by a hash of its id, so that more prompts or languages move none of them."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    if place < test_fraction:
        return "test"
    return "validation" if place < test_fraction + validation_fraction else "train"


def _run(command: Sequence[str], folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise DataError(f"{' '.join(command[:2])} failed: {reason[-1] if reason else f'exit {done.returncode}'}")
