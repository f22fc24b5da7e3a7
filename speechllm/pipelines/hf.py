"""`transformers.pipeline` on our checkpoints: speech recognition and speech translation.

    import speechllm
    from transformers import pipeline

    recognise = pipeline("automatic-speech-recognition", model="checkpoint")
    recognise("hello.wav", generate_kwargs={"language": "en"})                 # {"text": "good morning"}
    recognise(["a.wav", {"array": samples, "sampling_rate": 16_000}], batch_size=8)

    translate = pipeline("speech-translation", model="checkpoint", src_lang="en", tgt_lang="fr")
    translate("hello.wav", return_transcript=True)                            # {"text": ..., "transcript": ...}

Long audio is cut at pauses. `generate_kwargs` take the names of `generate()`; one that would change nothing (a
temperature without do_sample=True, a language where there are two) is an error.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from transformers import AutoFeatureExtractor, AutoModelForCausalLM, Pipeline, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pipelines.automatic_speech_recognition import AutomaticSpeechRecognitionPipeline

from speechllm.errors import CheckpointError, ConfigError, NoCheckpointError, SpeechLLMError
from speechllm.generation.decode import DecodingConfig
from speechllm.generation.sampling import SamplingConfig
from speechllm.hub import Checkpoint, checkpoint_folder, load_checkpoint
from speechllm.pipelines.output import TaskOutput
from speechllm.pipelines.speech_parts import AUDIO_TYPES
from speechllm.pipelines.system import SpeechSystem
from speechllm.processor import UnifiedProcessor
from speechllm.registry import suggest
from speechllm.tasks import TaskTag

GENERATE_KWARGS = (
    "language", "max_new_tokens", "num_beams", "length_penalty", "do_sample", "temperature", "top_k", "top_p",
)  # fmt: skip


class _SpeechPipeline(Pipeline):
    """What both share: parts from the checkpoint's folder, batches, options."""

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = None

    def __init__(self, model: PreTrainedModel, processor: Any = None, **kwargs: Any):
        super().__init__(model, processor=None, **kwargs)
        self.system = SpeechSystem(_checkpoint(self.model, processor))

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **kwargs: Any) -> Any:
        """Do the task: a dict for one input, a list for a list, an iterator for any other iterable.

        Args:
            inputs: path, bytes, array dict, `Audio`, or several of them.
            batch_size: inputs decoded together (long audio counts as one).
            **kwargs: options as in `pipeline(...)`; these win.
        """
        options = {**self._forward_params, **self._sanitize_parameters(**kwargs)[1]}
        size = batch_size or self._batch_size or 1
        if isinstance(inputs, AUDIO_TYPES):
            return self._run([inputs], options)[0]
        if isinstance(inputs, list | tuple):
            return list(self._in_batches(inputs, size, options))
        return self._in_batches(inputs, size, options)

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

    # The steps of the base class, for code that calls them one by one.

    def preprocess(self, input_: Any, **preprocess_parameters: Any) -> dict[str, Any]:
        """Return the input as it is: the system loads it."""
        return {"input": input_}

    def _forward(self, input_tensors: dict[str, Any], **forward_parameters: Any) -> Any:
        return self._run([input_tensors["input"]], forward_parameters)[0]

    def postprocess(self, model_outputs: Any, **postprocess_parameters: Any) -> Any:
        """Return the output as it is."""
        return model_outputs


class SpeechRecognitionPipeline(_SpeechPipeline):
    """Speech recognition; anything but a causal LM goes to the stock pipeline."""

    # Stock models need theirs; a checkpoint of ours has none.
    _load_feature_extractor = None

    def __new__(cls, model: PreTrainedModel, **kwargs: Any) -> Any:  # noqa: D102 - says which pipeline the model gets
        if type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
            return super().__new__(cls)
        if kwargs.get("feature_extractor") is None and model.name_or_path:
            # transformers tried and went on without, for our sake; here its error is wanted.
            kwargs["feature_extractor"] = AutoFeatureExtractor.from_pretrained(model.name_or_path)
        return AutomaticSpeechRecognitionPipeline(model=model, **kwargs)

    def _sanitize_parameters(
        self, language: str | None = None, generate_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        options = _generate_options(generate_kwargs, kwargs)
        if language is not None:
            options["language"] = language
        return {}, options, {}

    def _run(self, inputs: list[Any], options: dict[str, Any]) -> list[dict[str, Any]]:
        tag = TaskTag.of("ASR", options.get("language", "en"))
        outputs = self.system.run(tag, inputs, decoding=_decoding(self.system.decoding, options))
        return [{"text": output.text} for output in outputs]


class SpeechTranslationPipeline(_SpeechPipeline):
    """Speech translation: text, on request the transcript and speech with it."""

    def _sanitize_parameters(
        self,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        return_transcript: bool | None = None,
        return_audio: bool | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        options = _generate_options(generate_kwargs, kwargs)
        if "language" in options:
            raise ConfigError("speech-translation has two languages and no option 'language'; pass src_lang, tgt_lang")
        own = {
            "src_lang": src_lang, "tgt_lang": tgt_lang,
            "return_transcript": return_transcript, "return_audio": return_audio,
        }  # fmt: skip
        return {}, {**options, **{name: value for name, value in own.items() if value is not None}}, {}

    def _run(self, inputs: list[Any], options: dict[str, Any]) -> list[dict[str, Any]]:
        source, target = options.get("src_lang"), options.get("tgt_lang")
        if source is None or target is None:
            raise ConfigError("speech-translation needs two languages; pass src_lang='en', tgt_lang='fr'")
        decoding = _decoding(self.system.decoding, options)
        if options.get("return_audio"):
            outputs = self.system.translate(inputs, source=source, target=target, speech=True, decoding=decoding)
        else:
            tag = TaskTag.of("ASR AST" if options.get("return_transcript") else "AST", source, target)
            outputs = self.system.run(tag, inputs, decoding=decoding)
        return [_translated(output, bool(options.get("return_transcript"))) for output in outputs]


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


def _translated(output: TaskOutput, with_transcript: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"text": output.text}
    if with_transcript:
        found["transcript"] = output.texts["transcript"]
    if output.audio is not None:
        found["audio"], found["sampling_rate"] = output.audio.samples, output.audio.sample_rate
    return found


def _checkpoint(model: Any, processor: Any) -> Checkpoint:
    if isinstance(processor, UnifiedProcessor):
        return Checkpoint(model.eval(), processor)
    if not model.name_or_path:
        raise CheckpointError(
            f"the {type(model).__name__} does not say where it came from; "
            "pass the checkpoint folder as model=, or processor=UnifiedProcessor"
        )
    return load_checkpoint(model.name_or_path, model=model, device=model.device)


def _generate_options(generate_kwargs: Mapping[str, Any] | None, others: Mapping[str, Any]) -> dict[str, Any]:
    options = {**(generate_kwargs or {}), **others}
    for name in options:
        if name not in GENERATE_KWARGS:
            raise ConfigError(
                f"unknown option {name!r}{suggest(name, GENERATE_KWARGS)} (known: {', '.join(GENERATE_KWARGS)})"
            )
    return options


def _decoding(base: DecodingConfig, options: Mapping[str, Any]) -> DecodingConfig:
    """Return `base` with the options of `generate()` on top; they are about text."""
    changes = {name: options[name] for name in ("num_beams", "length_penalty") if name in options}
    if "max_new_tokens" in options:
        changes["max_text_tokens"] = options["max_new_tokens"]
    sampling = {name: options[name] for name in ("temperature", "top_k", "top_p") if name in options}
    if sampling and not options.get("do_sample", False):
        raise ConfigError(f"{', '.join(sampling)} changes nothing without sampling; pass do_sample=True as well")
    if "do_sample" in options:
        changes["text"] = SamplingConfig(**{"temperature": 1.0, **sampling} if options["do_sample"] else {})
    return dataclasses.replace(base, **changes)
