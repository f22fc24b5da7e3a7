"""`transformers.pipeline` on our checkpoints: five tasks, one system behind them.

    import speechllm
    from transformers import pipeline

    recognise = pipeline("automatic-speech-recognition", model="checkpoint")
    recognise("hello.wav", generate_kwargs={"language": "en"})                 # {"text": "good morning"}
    recognise("talk.wav", return_timestamps=True)["chunks"]          # [{"text": ..., "timestamp": (0.0, 17.3)}, ...]
    recognise(["a.wav", {"array": samples, "sampling_rate": 16_000}], batch_size=8)
    for piece in recognise("hello.wav", stream=True): print(piece["text"])

    pipeline("translation", model="checkpoint", src_lang="en", tgt_lang="fr")("good morning")
    pipeline("speech-translation", model="checkpoint", src_lang="en", tgt_lang="fr")("a.wav", return_transcript=True)
    pipeline("speech-to-speech-translation", model="checkpoint", src_lang="en", tgt_lang="fr")(
        "hello.wav", voice="source", consent=True)       # {"audio", "sampling_rate", "text", "transcript"}, one chain
    pipeline("text-to-speech", model="checkpoint", language="fr")("bonjour")   # {"audio": [S], "sampling_rate": ...}

Long audio is cut at pauses, and a list gives what its items give one by one. `generate_kwargs` take the names of
`generate()`; one that would change nothing (a temperature without do_sample=True) is an error. What the model was not
trained for is refused, unless it is loaded with `pipeline(..., allow_untrained=True)`; `vad="silero"` finds pauses in
noise.
"""

import logging
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from transformers import AutoFeatureExtractor, AutoModelForCausalLM, Pipeline, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pipelines.automatic_speech_recognition import AutomaticSpeechRecognitionPipeline
from transformers.pipelines.text_to_audio import TextToAudioPipeline

from speechllm.audio import Audio
from speechllm.errors import CheckpointError, ConfigError, NoCheckpointError, SpeechLLMError, TaskError
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.hub import Checkpoint, checkpoint_folder, load_checkpoint, save_checkpoint
from speechllm.pipelines.inputs import each, is_one_audio, read_audio
from speechllm.pipelines.options import SAMPLING_OPTIONS, TEXT_OPTIONS, known_options, speech_decoding, text_decoding
from speechllm.pipelines.output import TaskOutput
from speechllm.pipelines.pauses import VadName
from speechllm.pipelines.speech_parts import Voice
from speechllm.pipelines.streaming_chain import Event, stream_chain, text_key
from speechllm.pipelines.streaming_text import TextPiece, stream_text
from speechllm.pipelines.system import SPOKEN_TRANSLATIONS, TEXT_TRANSLATIONS, EncodedSpeech, SpeechSystem
from speechllm.processor import UnifiedProcessor
from speechllm.tasks import TaskTag

logger = logging.getLogger(__name__)

AUDIO_OPTIONS = ("chunk_length_s", "return_timestamps", "stream", "streamer")
VOICE_OPTIONS = ("voice", "consent", "watermark", "candidates", "stream")
LANGUAGES = ("src_lang", "tgt_lang")


class SpeechLLMPipeline(Pipeline):
    """What all share: parts from the checkpoint's folder, inputs, batches, options."""

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    name: ClassVar[str]
    "The task, for messages."
    options: ClassVar[tuple[str, ...]]
    "What may be given beside the input."
    reads_text: ClassVar[bool] = False

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any = None,
        *,
        allow_untrained: bool = False,
        vad: VadName = "energy",
        **kwargs: Any,
    ):
        super().__init__(model, processor=None, **kwargs)
        self.system = SpeechSystem(_checkpoint(self.model, processor), allow_untrained=allow_untrained, vad=vad)
        self.tokenizer = self.system.processor.text_tokenizer

    def __call__(
        self, inputs: Any, *, batch_size: int | None = None, num_workers: int | None = None, **kwargs: Any
    ) -> Any:
        """Do the task: a dict for one input, a list for a list, an iterator for any other iterable.

        Args:
            inputs: a text; or audio: path, URL, bytes, array, dict of array and rate, a decoded column; or several.
            batch_size: inputs decoded together (the pieces of long audio are in any case).
            num_workers: no meaning here; other pipelines have it.
            **kwargs: options as in `pipeline(...)`; these win.

        Raises:
            ConfigError: an option is not known, or would change nothing.
            AudioError: an audio cannot be read.
            TaskError: an input is empty or of the wrong kind.
            UntrainedError: the model was not trained for the task in these languages, and was not loaded with
                `allow_untrained=True`.
            ConsentError: a voice without consent.
        """
        options = {**self._forward_params, **self._sanitize_parameters(**kwargs)[1]}
        size = batch_size or self._batch_size or 1
        if options.get("stream"):
            return self._stream(inputs, options)
        if isinstance(inputs, str) or (not self.reads_text and is_one_audio(inputs)):
            return self._run([inputs], options)[0]
        found = self._in_batches(each(inputs), size, options)
        if options.get("streamer") is not None:
            raise ConfigError("a streamer takes one input at a time; call the pipeline once for each")
        return list(found) if isinstance(inputs, list | tuple) else found

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write the whole checkpoint."""
        parts = self.system.checkpoint
        save_checkpoint(
            save_directory, parts.model, parts.processor, codec=parts.codec, acoustic=parts.acoustic,
            trained=parts.trained,
        )  # fmt: skip

    def _sanitize_parameters(
        self, generate_kwargs: Any = None, forward_params: Any = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        options = known_options(self.name, self.options, forward_params, generate_kwargs, kwargs)
        if options.get("return_timestamps") not in (None, True, False):
            raise ConfigError(
                f"return_timestamps is {options['return_timestamps']!r}, but times of words are not known; "
                "pass True for those of the pieces, and chunk_length_s for shorter ones"
            )
        return {}, options, {}

    def _in_batches(self, inputs: Iterable[Any], size: int, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
        batch: list[Any] = []
        for item in inputs:
            batch.append(item)
            if len(batch) == size:
                yield from self._run(batch, options)
                batch = []
        if batch:
            yield from self._run(batch, options)

    def _run(self, inputs: list[Any], options: dict[str, Any]) -> list[dict[str, Any]]:
        raise NotImplementedError

    def _stream(self, inputs: Any, options: dict[str, Any]) -> Iterator[Event]:
        raise NotImplementedError

    def _decoding(self, options: dict[str, Any]) -> DecodingConfig:
        return text_decoding(self.system.decoding, options)

    def _texts(self, tag: TaskTag, inputs: Sequence[Any], options: dict[str, Any]) -> list[TaskOutput]:
        """Run a task that writes text, through a streamer if there is one."""
        decoding = self._decoding(options)
        if (streamer := options.get("streamer")) is not None:
            outputs = [_returned(stream_text(self.system, tag, inputs[0], decoding=decoding, streamer=streamer))]
        else:
            outputs = self.system.run(tag, inputs, decoding=decoding, sound=False)
        return self._checked(outputs, options)

    def _text_events(self, tag: TaskTag, given: Any, options: dict[str, Any]) -> Iterator[Event]:
        pieces: Iterator[TextPiece] = stream_text(self.system, tag, given, decoding=self._decoding(options))
        fields = [name for name, kind in zip(tag.targets, tag.output_modalities, strict=True) if kind == "text"]
        return ({text_key(piece.field, fields): piece.text} for piece in pieces)

    def _sound_events(
        self, tag: TaskTag, inputs: Iterable[Any], options: dict[str, Any], sources: Sequence[Audio] = ()
    ) -> Iterator[Event]:
        if not options.get("watermark", True):
            raise ConfigError("a stream always carries the watermark; leave stream=True out to speak without it")
        self.system.sound_parts()
        voice: Any = self._voice(options, sources)
        if isinstance(voice, list):
            if len(voice) != 1:
                raise ConfigError(f"{len(voice)} voices came with one stream; give one")
            (voice,) = voice
        return stream_chain(
            self.system, tag, inputs, decoding=self._decoding(options), voice=voice,
            consent=bool(options.get("consent")),
        )  # fmt: skip

    def _checked(self, outputs: list[TaskOutput], options: dict[str, Any]) -> list[TaskOutput]:
        """Say so if an answer did not end by itself, unless the user set its length."""
        cut = [output.stop_reason for output in outputs if output.stop_reason != "eos"]
        if cut and "max_new_tokens" not in options:
            logger.warning(
                "%s: %d of %d answers did not end by themselves and were cut off (%s); shorter input may help "
                "(chunk_length_s), or a larger max_new_tokens", self.name, len(cut), len(outputs), ", ".join(set(cut)),
            )  # fmt: skip
        return outputs

    def _encoded(self, inputs: Sequence[Any], options: dict[str, Any]) -> tuple[list[Audio], list[EncodedSpeech]]:
        """Return what is heard, as sound and as codes."""
        rate = self.system.semantic_tokenizer().sample_rate
        audios = [read_audio(one, rate) for one in inputs]
        return audios, self.system.encode(audios, piece_seconds=options.get("chunk_length_s") or None)

    def _one_input(self, inputs: Any) -> Any:
        if not (isinstance(inputs, str) if self.reads_text else is_one_audio(inputs)):
            raise ConfigError("stream=True takes one input at a time; call the pipeline once for each")
        return inputs

    def _voice(self, options: dict[str, Any], sources: Sequence[Audio] = ()) -> Voice:
        voice = options.get("voice")
        if isinstance(voice, str) and voice == "source" and sources:
            return list(sources)
        if voice is None:
            return None
        _, codec = self.system.sound_parts()
        if isinstance(voice, list | tuple):
            return [read_audio(one, codec.sample_rate) for one in voice]
        return read_audio(voice, codec.sample_rate)

    def _languages(self, options: dict[str, Any]) -> tuple[str, str]:
        source, target = options.get("src_lang"), options.get("tgt_lang")
        if source is None or target is None:
            raise ConfigError(f"{self.name} needs two languages; pass src_lang='en', tgt_lang='fr'")
        return source, target

    # The steps of the base class, for code that calls them one by one.

    def preprocess(self, input_: Any, **preprocess_parameters: Any) -> dict[str, Any]:
        """Return the input as it is: the system loads it."""
        return {"input": input_}

    def _forward(self, input_tensors: dict[str, Any], **forward_parameters: Any) -> Any:
        return self._run([input_tensors["input"]], forward_parameters)[0]

    def postprocess(self, model_outputs: Any, **postprocess_parameters: Any) -> Any:
        """Return the output as it is."""
        return model_outputs


class SpeechRecognitionPipeline(SpeechLLMPipeline):
    """Speech recognition; anything but a causal LM goes to the stock pipeline."""

    # Stock models need theirs; a checkpoint of ours has none.
    _load_feature_extractor = None
    _load_tokenizer = None

    name = "automatic-speech-recognition"
    options = ("language", *TEXT_OPTIONS, *AUDIO_OPTIONS)

    def __new__(cls, model: PreTrainedModel, **kwargs: Any) -> Any:  # noqa: D102 - says which pipeline the model gets
        if _is_causal_lm(model):
            return super().__new__(cls)
        if kwargs.get("feature_extractor") is None and model.name_or_path:
            # transformers tried and went on without, for our sake; here its error is wanted.
            kwargs["feature_extractor"] = AutoFeatureExtractor.from_pretrained(model.name_or_path)
        return AutomaticSpeechRecognitionPipeline(model=model, **kwargs)

    def _run(self, inputs: list[Any], options: dict[str, Any]) -> list[dict[str, Any]]:
        tag = self._tag(options)
        _, speech = self._encoded(inputs, options)
        return [_with_chunks({"text": output.text}, output, options) for output in self._texts(tag, speech, options)]

    def _stream(self, inputs: Any, options: dict[str, Any]) -> Iterator[Event]:
        tag = self._tag(options)
        _, (speech,) = self._encoded([self._one_input(inputs)], options)
        return self._text_events(tag, speech, options)

    def _tag(self, options: dict[str, Any]) -> TaskTag:
        return self.system.trained_tag(("ASR",), options.get("language", "en"))


class TextTranslationPipeline(SpeechLLMPipeline):
    """Text translation: {"translation_text": ...}."""

    name = "translation"
    options = (*LANGUAGES, *TEXT_OPTIONS, "stream", "streamer")
    reads_text = True

    def _run(self, inputs: list[Any], options: dict[str, Any]) -> list[dict[str, Any]]:
        outputs = self._texts(self._tag(options), inputs, options)
        return [{"translation_text": output.text} for output in outputs]

    def _stream(self, inputs: Any, options: dict[str, Any]) -> Iterator[Event]:
        events = self._text_events(self._tag(options), self._one_input(inputs), options)
        return ({"translation_text": event["text"]} for event in events)

    def _tag(self, options: dict[str, Any]) -> TaskTag:
        return self.system.trained_tag(("MT",), *self._languages(options))


class SpeechTranslationPipeline(SpeechLLMPipeline):
    """Speech translation: text, on request the transcript and speech with it."""

    name = "speech-translation"
    options = (*LANGUAGES, "return_transcript", "return_audio", *TEXT_OPTIONS, *AUDIO_OPTIONS)

    def _run(self, inputs: list[Any], options: dict[str, Any]) -> list[dict[str, Any]]:
        tag, transcript = self._tag(options), bool(options.get("return_transcript"))
        if options.get("return_audio"):
            self.system.sound_parts()
        _, speech = self._encoded(inputs, options)
        if options.get("return_audio"):
            outputs = self.system.run(tag, speech, decoding=self._decoding(options))
            self._checked(outputs, options)
        else:
            outputs = self._texts(tag, speech, options)
        found = [_translated(output, transcript, bool(options.get("return_audio"))) for output in outputs]
        return [_with_chunks(one, output, options) for one, output in zip(found, outputs, strict=True)]

    def _stream(self, inputs: Any, options: dict[str, Any]) -> Iterator[Event]:
        if options.get("return_audio"):
            raise ConfigError("this pipeline streams text; for sound as well use speech-to-speech-translation")
        tag = self._tag(options)
        _, (speech,) = self._encoded([self._one_input(inputs)], options)
        return self._text_events(tag, speech, options)

    def _tag(self, options: dict[str, Any]) -> TaskTag:
        ways = SPOKEN_TRANSLATIONS[:2] if options.get("return_audio") else TEXT_TRANSLATIONS
        if options.get("return_transcript"):
            ways = [names for names in ways if "ASR" in names.split()]
        return self.system.trained_tag(ways, *self._languages(options))


class SpeechToSpeechPipeline(SpeechLLMPipeline):
    """Speech to speech: the sound, the translation it says and the transcript of the source, from one chain."""

    name = "speech-to-speech-translation"
    options = (*LANGUAGES, "chunk_length_s", "return_timestamps", *VOICE_OPTIONS, *TEXT_OPTIONS)

    def _run(self, inputs: list[Any], options: dict[str, Any]) -> list[dict[str, Any]]:
        self.system.sound_parts()
        tag = self._tag(options)
        audios, speech = self._encoded(inputs, options)
        outputs = self.system.run(
            tag, speech, voice=self._voice(options, audios), consent=bool(options.get("consent")),
            watermark=options.get("watermark", True), decoding=self._decoding(options),
        )  # fmt: skip
        self._checked(outputs, options)
        return [_with_chunks(_translated(output, True, True), output, options) for output in outputs]

    def _stream(self, inputs: Any, options: dict[str, Any]) -> Iterator[Event]:
        self.system.sound_parts()
        tag = self._tag(options)
        audios, speech = self._encoded([self._one_input(inputs)], options)
        return self._sound_events(tag, speech, options, audios)

    def _tag(self, options: dict[str, Any]) -> TaskTag:
        return self.system.trained_tag(SPOKEN_TRANSLATIONS, *self._languages(options))


class TextToSpeechPipeline(SpeechLLMPipeline):
    """Text to speech; anything but a causal LM goes to the stock pipeline."""

    # As in the stock pipeline, whose models need them.
    _load_processor = None
    _load_tokenizer = True

    name = "text-to-speech"
    options = ("language", *VOICE_OPTIONS, *SAMPLING_OPTIONS)
    reads_text = True

    def __new__(cls, model: PreTrainedModel, **kwargs: Any) -> Any:  # noqa: D102 - says which pipeline the model gets
        return super().__new__(cls) if _is_causal_lm(model) else TextToAudioPipeline(model=model, **kwargs)

    def _run(self, inputs: list[Any], options: dict[str, Any]) -> list[dict[str, Any]]:
        outputs = self.system.speak(
            inputs, language=options.get("language", "en"), voice=self._voice(options),
            consent=bool(options.get("consent")), watermark=options.get("watermark", True),
            decoding=self._decoding(options),
        )  # fmt: skip
        return [_sound(output) for output in self._checked(outputs, options)]

    def _stream(self, inputs: Any, options: dict[str, Any]) -> Iterator[Event]:
        texts = [inputs] if isinstance(inputs, str) else each(inputs)
        tag = self.system.trained_tag(("TTS",), options.get("language", "en"))
        return self._sound_events(tag, texts, options)

    def _decoding(self, options: dict[str, Any]) -> DecodingConfig:
        return speech_decoding(self.system.decoding, options, self.system.decoder.frame_rate)


def load_lm(
    source: str, *, revision: str | None = None, token: str | bool | None = None, **kwargs: Any
) -> PreTrainedModel:
    """Return the LM of a checkpoint folder or repository; its `name_or_path` is the folder where the other parts lie.

    Raises:
        NoCheckpointError: it is something else; `pipeline()` goes on with the model's own class.
        SpeechLLMError: it is a checkpoint that must not be loaded, or cannot be fetched.
    """
    try:
        folder = checkpoint_folder(source, revision=revision, token=token)
    except NoCheckpointError:
        raise
    except CheckpointError as error:
        # After a ValueError pipeline() would try the model's own class, which also takes pickles.
        raise SpeechLLMError(str(error)) from error
    return AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **kwargs)


def _is_causal_lm(model: Any) -> bool:
    return type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()


def _checkpoint(model: Any, processor: Any) -> Checkpoint:
    if isinstance(processor, UnifiedProcessor):
        return Checkpoint(model.eval(), processor)
    if not model.name_or_path:
        raise CheckpointError(
            f"the {type(model).__name__} does not say where it came from; "
            "pass the checkpoint folder as model=, or processor=UnifiedProcessor"
        )
    return load_checkpoint(model.name_or_path, model=model, device=model.device, revision=_commit_of_this_code())


def _commit_of_this_code() -> str | None:
    """Return the commit of the repository that this file was fetched from, if it was: all parts are taken from there.

    transformers keeps code as transformers_modules/<owner>/<name>/<commit>/<folder>/<file>, and forgets the commit.
    """
    commit = Path(__file__).parents[1].name
    return commit if re.fullmatch(r"[0-9a-f]{40}", commit) else None


def _returned(steps: Generator[Any, None, TaskOutput]) -> TaskOutput:
    """Run a generator to its end and give what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _with_chunks(found: dict[str, Any], output: TaskOutput, options: dict[str, Any]) -> dict[str, Any]:
    """Add the texts of the pieces with their times, if they were asked for."""
    if options.get("return_timestamps"):
        pieces = {
            text_key(name, output.texts): output.chunks(name)
            for name in output.texts
            if text_key(name, output.texts) in found
        }
        found["chunks"] = [
            {**{key: chunks[place][0] for key, chunks in pieces.items()}, "timestamp": span}
            for place, span in enumerate(output.spans)
        ]
    return found


def _translated(output: TaskOutput, with_transcript: bool, with_audio: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"text": output.text}
    if with_transcript and "transcript" in output.texts:
        found["transcript"] = output.texts["transcript"]
    return {**found, **_sound(output)} if with_audio else found


def _sound(output: TaskOutput) -> dict[str, Any]:
    """Return the samples float32 [S] and their rate."""
    if output.audio is None:
        raise TaskError(f"{output.tag}: the model wrote no speech for this input; try another seed or a longer input")
    return {"audio": output.audio.samples, "sampling_rate": output.audio.sample_rate}
