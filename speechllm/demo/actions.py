"""What the demo does, without a page: a wish in, what is to be seen and heard out.

    demo = Demo(SpeechSystem.from_pretrained("checkpoint"))
    shown = demo.speech("hello.wav", "translate and speak", "en", "fr")
    shown.transcript, shown.translation, shown.audio, shown.verdict

Whatever comes in is a file that the page has stored or a text; a voice is only copied with consent. One thing is done
at a time: a system serves one caller.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from speechllm.audio import Audio, load_audio
from speechllm.demo.offers import SPEECH_TASKS, TEXT_TASKS, Offers
from speechllm.errors import AudioError, TaskError
from speechllm.evaluation.resynthesis import ORIGINAL, resynthesize
from speechllm.generation.cascade import require_match
from speechllm.generation.decoding_config import CandidatesConfig, DecodingConfig
from speechllm.pipelines.output import TaskOutput
from speechllm.pipelines.system import SpeechSystem
from speechllm.safety import detect_watermark, require_consent
from speechllm.tasks import TaskTag

DRAWN, SOURCE, OTHER = "drawn by the model", "of the recording", "of another recording"
VOICES = (DRAWN, SOURCE, OTHER)
MAX_SECONDS, MAX_CHARACTERS = 60.0, 500
BEST_OF_FOUR = DecodingConfig(candidates=CandidatesConfig(count=4))


@dataclass(frozen=True, eq=False)
class Shown:
    """What a task gave."""

    transcript: str = ""
    translation: str = ""
    audio: Audio | None = None
    verdict: str = ""
    "What the watermark detector says of the speech."
    source: Audio | None = None
    "What went in, for its picture."
    outputs: Sequence[TaskOutput] = field(default=())


class Demo:
    """A system and what it is compared with."""

    def __init__(
        self,
        system: SpeechSystem,
        *,
        rivals: Mapping[str, Any] | None = None,
        decoding: DecodingConfig = BEST_OF_FOUR,
    ):
        """Take a system to show.

        Args:
            system: nobody else may use it meanwhile.
            rivals: other acoustic models for the same codec, by name, for the comparison.
            decoding: of all tasks.

        Raises:
            CheckpointError: a rival was trained with another codec, or the checkpoint cannot speak.
        """
        self.system, self.decoding = system, decoding
        trained = None if system.allow_untrained else system.checkpoint.trained
        self.offers = Offers(trained, can_speak=system.can_speak)
        self.rivals = {}
        for name, acoustic in (rivals or {}).items():
            _, codec = system.sound_parts()
            require_match(acoustic, codec)
            self.rivals[name] = replace(system.parts, acoustic=acoustic)
        self._lock = threading.Lock()

    def speech(
        self,
        recording: str | Path | None,
        task: str,
        source: str,
        target: str,
        voice: str = DRAWN,
        voice_recording: str | Path | None = None,
        consent: bool = False,
    ) -> Shown:
        """Do a task of SPEECH_TASKS on a recording.

        Raises:
            SpeechLLMError: no recording, too long, the languages are the same, a voice without consent.
        """
        audio = _recording(recording, "record or upload some speech first")
        (ways,) = SPEECH_TASKS[task]
        tag = self.system.trained_tag(ways, source, target)
        _check_languages(tag)
        speaks = "audio" in tag.output_modalities
        prompt = self._voice(voice, audio, voice_recording, consent) if speaks else None
        with self._lock:
            (output,) = self.system.run(tag, [audio], voice=prompt, consent=prompt is not None, decoding=self.decoding)
        return _shown([output], audio)

    def text(
        self,
        text: str,
        task: str,
        source: str,
        target: str,
        voice: str = DRAWN,
        voice_recording: str | Path | None = None,
        consent: bool = False,
    ) -> Shown:
        """Do a task of TEXT_TASKS on a text.

        Raises:
            SpeechLLMError: no text, too long, the languages are the same, a voice without consent.
        """
        if not text.strip() or len(text) > MAX_CHARACTERS:
            raise TaskError(f"the text has {len(text.strip())} characters, expected 1 to {MAX_CHARACTERS}")
        steps = TEXT_TASKS[task]
        prompt = self._voice(voice, None, voice_recording, consent) if ["TTS"] in steps else None
        outputs: list[TaskOutput] = []
        language, said = source, text
        with self._lock:
            for ways in steps:
                tag = self.system.trained_tag(ways, language, target)
                _check_languages(tag)
                voiced = prompt if tag.name == "TTS" else None
                outputs += self.system.run(
                    tag, [said], voice=voiced, consent=voiced is not None, decoding=self.decoding
                )
                if tag.name == "MT":
                    language, said = tag.target_language or language, outputs[-1].text
                    if not said.strip() and ways is not steps[-1]:
                        raise TaskError("the model translated the text into nothing, so there is nothing to say")
        return _shown(outputs, None)

    def compare(self, recording: str | Path | None, language: str) -> dict[str, Audio]:
        """Return the recording, its codec copy, and its semantic codes made sound again, by each acoustic model.

        Raises:
            SpeechLLMError: no recording, too long, or the checkpoint cannot speak.
        """
        audio = _recording(recording, "record or upload some speech first")
        found: dict[str, Audio] = {}
        with self._lock:
            for name, parts in {"": self.system.parts, **self.rivals}.items():
                for stage in resynthesize(parts, [audio], language=language, judge=None, embedder=None).stages:
                    # The recording and its codec copy are the same for all.
                    if name == "" or stage.name not in found:
                        found[stage.name] = stage.audios[0]
                    elif name and stage.name not in (ORIGINAL, "codec copy"):
                        found[f"{stage.name}, {name}"] = stage.audios[0]
        return found

    def _voice(
        self, voice: str, source: Audio | None, other: str | Path | None, consent: bool
    ) -> Audio | None:  # fmt: skip
        if voice == DRAWN:
            return None
        require_consent(consent, "the voice")
        if voice == SOURCE and source is not None:
            return source
        return _recording(other, "give a recording of the voice, or choose the voice that the model draws")


def _shown(outputs: Sequence[TaskOutput], source: Audio | None) -> Shown:
    texts: dict[str, str] = {}
    for output in outputs:
        texts |= output.texts
    audio = next((output.audio for output in outputs if output.audio is not None), None)
    return Shown(
        texts.get("transcript", ""), texts.get("translation", ""), audio, _verdict(audio), source, tuple(outputs)
    )


def _verdict(audio: Audio | None) -> str:
    if audio is None:
        return ""
    found = detect_watermark(audio)
    said = "watermark found" if found.present else "no watermark found (speech under a second is too short for one)"
    return f"{said}: score {found.score:.1f}, where 6.5 and more is a mark and unmarked sound has 3 to 5"


def _recording(source: str | Path | None, missing: str) -> Audio:
    if source is None:
        raise AudioError(missing)
    audio = load_audio(source)
    if audio.duration_seconds > MAX_SECONDS:
        raise AudioError(f"the recording lasts {audio.duration_seconds:.0f} s, expected at most {MAX_SECONDS:.0f} s")
    return audio


def _check_languages(tag: TaskTag) -> None:
    if tag.target_language == tag.source_language:
        raise TaskError("both languages are the same; choose two to translate")
