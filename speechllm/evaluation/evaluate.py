"""Evaluate a checkpoint on the held-out splits of a corpus: every task and direction, beside ceilings and floors.

    report = evaluate_checkpoint("runs/quickstart/checkpoint", "runs/quickstart/corpus", EvaluationConfig(num_items=50))
    write_report(report, "runs/quickstart/report")            # report.json, report.html

Text outputs get WER and CER, or BLEU and chrF. Generated speech is transcribed by a judge (judges.py) and
scored beside the original speech, its codec copy and its resynthesis (speech.py). Protocol: AudioPaLM
(arXiv:2306.12925, section 5); ASR-BLEU as in CVSS (arXiv:2201.03713).
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechllm.audio import Audio, AudioSource, load_audio
from speechllm.config import config_to_dict
from speechllm.errors import ConfigError
from speechllm.evaluation.environment import describe_environment, describe_system
from speechllm.evaluation.inputs import EncodedInputs
from speechllm.evaluation.items import Choice, Item, choose_items
from speechllm.evaluation.judges import Judge, JudgeConfig, Judges, make_judges, shares_tokens
from speechllm.evaluation.results import (
    CODEC_COPY,
    MODEL,
    ORIGINAL,
    SHUFFLED,
    EvaluationReport,
    Measurement,
    Run,
    Sample,
)
from speechllm.evaluation.speech import (
    RememberingEmbedder,
    System,
    Versions,
    Voice,
    choose_voices,
    duration_of,
    played,
    similarity_scores,
    speech_scores,
)
from speechllm.generation.decoded import DecodeReport
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.metrics.bootstrap import BootstrapConfig
from speechllm.metrics.normalise import NormaliserName, make_normaliser
from speechllm.metrics.score import Score
from speechllm.metrics.speaker import SpeakerEmbedder, make_speaker_embedder
from speechllm.metrics.text import CHRF, bleu_for, error_rates_for
from speechllm.tasks import Field, TaskTag
from speechllm.tasks.task import FIELD_MODALITY

LIMITS = [
    "Scores of speech come from recognisers and spectra; no person has listened, and nothing here is a MOS.",
    "Intervals are bootstrap intervals over the items of one checkpoint; they do not cover training seeds.",
    "A score of generated speech is bounded by its judge: read it beside the original speech and the codec copy.",
]


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is evaluated and how long it may take."""

    splits: tuple[str, ...] = ("test", "test_speakers")
    "Splits of the corpus; one that the corpus does not have is named in the report's limits."
    tasks: tuple[str, ...] = ("ASR", "AST", "MT", "TTS", "S2ST", "ASR AST S2ST")
    "Task names, as in a tag."
    directions: tuple[str, ...] = ()
    "Such as en or fr-en; empty: all that the corpus has. Tasks without translation take the source languages."
    num_items: int = 100
    "Items for each task, direction and split."
    num_spoken_items: int = 30
    "Of these, how many for tasks that end in speech: they take longest."
    num_unjudged_items: int | None = None
    "Of these, how many in a language that no judge knows (only voice and counters are measured); None: all."
    spoken_splits: tuple[str, ...] = ("test", "test_speakers")
    "Those of `splits` on which tasks that end in speech are evaluated."
    num_samples: int = 2
    "Items for each task, direction and split that the report shows in full, with sound."
    seed: int = 0
    "Of the choice of items, of sampling and of the voices."
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    "Who transcribes generated speech."
    speaker_embedder: str = "auto"
    "ge2e, mel-pitch, auto (ge2e if its weights are installed), or none."
    use_voice_prompts: bool = True
    "Speak in a voice of the corpus (S2ST: the source speaker's); otherwise a voice is drawn."
    with_shuffled_audio: bool = True
    "Also give ASR the speech of another item: a floor that shows whether the model listens."
    with_resynthesis: bool = True
    "Also judge the recordings' own semantic codes through the acoustic model."
    error_rate_normaliser: NormaliserName = "spoken"
    "For WER and CER of transcripts."
    translation_normaliser: NormaliserName = "none"
    "For BLEU and chrF of translated text: case and punctuation count."
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    "How intervals are made."
    decoding: DecodingConfig | None = None
    "In place of the system's own."

    def __post_init__(self) -> None:
        least_of = {"num_items": 1, "num_spoken_items": 0, "num_samples": 0, "num_unjudged_items": 0}
        for name, least in least_of.items():
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least {least}")


def evaluate_checkpoint(
    system: System | str | Path,
    corpus: str | Path,
    config: EvaluationConfig | None = None,
    *,
    judges: Judges | None = None,
    histories: Mapping[str, Sequence[Mapping[str, float | int]]] | None = None,
    title: str = "Evaluation",
    progress: Callable[[str], None] | None = None,
) -> EvaluationReport:
    """Evaluate a checkpoint on a prepared corpus.

    Voice prompts are recordings of the corpus: using it states that its speakers agreed to that.

    Args:
        system: a loaded system, or a checkpoint folder or Hub id.
        corpus: a folder that `prepare_corpus` wrote.
        config: what to do; the defaults if None.
        judges: in place of those that the config names.
        histories: training curves for the report, rows with `step` and losses by stage.
        title: heads the report.
        progress: called with a line before each part.

    Raises:
        DataError: the corpus cannot be read.
        ConfigError: it has none of the splits, or nothing that the checkpoint was trained for.
    """
    config = config or EvaluationConfig()
    evaluation = _Evaluation(
        _load(system), config, judges or make_judges(config.judge), progress or (lambda line: None)
    )
    start = time.perf_counter()
    for split in _present_splits(corpus, config.splits, evaluation.limits):
        evaluation.split(choose_items(corpus, split, num_items=config.num_items, seed=config.seed))
    evaluation.require_something(corpus)
    seconds = time.perf_counter() - start
    return EvaluationReport(
        title=title,
        measurements=evaluation.measurements,
        samples=evaluation.samples,
        runs=evaluation.runs,
        config=config_to_dict(config),
        environment=describe_environment() | {"evaluation_seconds": round(seconds, 1)},
        checkpoint=describe_system(evaluation.system),
        corpus={"folder": Path(corpus).name},
        judges=evaluation.judge_names(),
        limits=evaluation.limits,
        histories={stage: [dict(row) for row in rows] for stage, rows in (histories or {}).items()},
    )


class _Evaluation:
    """Collects what is measured, split by split and tag by tag."""

    def __init__(self, system: System, config: EvaluationConfig, judges: Judges, progress: Callable[[str], None]):
        self.system, self.config, self.judges, self.progress = system, config, judges, progress
        self.measurements: list[Measurement] = []
        self.samples: list[Sample] = []
        self.runs: list[Run] = []
        self.limits: list[str] = list(LIMITS)
        self.languages: set[str] = set()
        self.embedder: SpeakerEmbedder | None = None
        if config.speaker_embedder != "none" and system.can_speak:
            self.embedder = RememberingEmbedder(make_speaker_embedder(config.speaker_embedder))

    def split(self, choice: Choice) -> None:
        """Evaluate all tasks on the items chosen from one split."""
        versions = Versions(self.system, self.config.with_resynthesis, self.config.seed)
        inputs = EncodedInputs(self.system)
        for names in self.config.tasks:
            for language, target in choice.directions:
                tag = _tag(names, language, target)
                if tag is None or not self._wanted(tag) or not self._known(tag):
                    continue
                speaks = "audio" in tag.output_modalities
                if speaks and choice.split not in self.config.spoken_splits:
                    continue
                items = choice.items(tag, self._num_spoken(tag) if speaks else self.config.num_items)
                if items:
                    _TagEvaluation(self, choice.split, tag, items, versions, inputs).measure()

    def _num_spoken(self, tag: TaskTag) -> int:
        unjudged = self.config.num_unjudged_items
        spoken: list[Field] = [name for name in tag.targets if FIELD_MODALITY[name] == "audio"]
        is_judged = any(self.judges.for_language(tag.output_language(name)) for name in spoken)
        return self.config.num_spoken_items if is_judged or unjudged is None else unjudged

    def require_something(self, corpus: str | Path) -> None:
        """Raise if nothing was measured: a report without a score says nothing, and looks like one that does."""
        if not self.measurements:
            known = getattr(self.system.checkpoint, "trained", None)
            raise ConfigError(
                f"nothing in {corpus} fits the tasks {', '.join(self.config.tasks)}"
                + (f" of a checkpoint that was trained for {known}" if known is not None else "")
                + "; name other tasks or directions, another corpus, or allow what it was not trained for"
            )

    def judge_names(self) -> dict[str, str]:
        """Return the judge of each language that speech was generated in."""
        names = {}
        for language in sorted(self.languages):
            heard_by = " and ".join(judge.name for judge in self.judges.all_for(language))
            names[language] = heard_by or self.judges.why_none(language)
        return names

    def _known(self, tag: TaskTag) -> bool:
        if self.system.knows(tag):
            return True
        line = f"{tag}: not measured, the checkpoint was not trained for it (allow_untrained measures it all the same)."
        if line not in self.limits:
            self.limits.append(line)
        return False

    def _wanted(self, tag: TaskTag) -> bool:
        wanted = self.config.directions
        if not wanted or tag.direction in wanted:
            return True
        return tag.target_language is None and tag.source_language in {d.split("-")[0] for d in wanted}


class _TagEvaluation:
    """One tag on one split: run it, then score each of its output fields."""

    def __init__(
        self, parent: _Evaluation, split: str, tag: TaskTag, items: list[Item], versions: Versions,
        inputs: EncodedInputs,
    ):  # fmt: skip
        self.parent, self.split, self.tag, self.items = parent, split, tag, items
        self.versions, self.inputs = versions, inputs
        self.config, self.system = parent.config, parent.system
        self.outputs: list[Any] = []
        self.heard: list[str | None] = []
        self.prompt_field: Field = "audio"

    def measure(self) -> None:
        """Run the task and record scores, counters and samples."""
        self.parent.progress(f"{self.split} {self.tag}: {len(self.items)} items")
        voices = self._voices()
        self.outputs = self._run(self.items, voices)
        for name in self.tag.targets:
            if name in ("transcript", "translation"):
                self._text(name)
            else:
                self._speech(name, voices)
        if self.tag.name == "ASR":
            self._asr_bounds()
        self._keep_samples()

    def _voices(self) -> list[Voice] | None:
        if "audio" not in self.tag.output_modalities or not (self.system.can_speak and self.config.use_voice_prompts):
            return None
        if self.tag.source == "audio":
            return [Voice.of(item, "audio") for item in self.items]  # AudioPaLM: the voice of the source speech
        return choose_voices(self.items, "audio")

    def _run(self, items: Sequence[Item], voices: list[Voice] | None) -> list[Any]:
        source = self.tag.source
        if source == "audio":
            inputs, encoding_seconds = self.inputs.of(items)
        else:
            inputs, encoding_seconds = [item.texts[source] for item in items], 0.0
        start = time.perf_counter()
        outputs = self.system.run(
            self.tag, inputs, voice=voices and [voice.source for voice in voices], consent=voices is not None,
            seed=self.config.seed, decoding=self.config.decoding,
        )  # fmt: skip
        seconds = encoding_seconds + time.perf_counter() - start
        if source == "audio":
            audio_seconds = sum(duration_of(item.audios["audio"]) for item in items)
        else:
            audio_seconds = sum(o.audio.duration_seconds for o in outputs if o.audio is not None)
        decoded = DecodeReport.of(d for output in outputs for d in output.decoded)
        self.parent.runs.append(
            Run(
                split=self.split,
                tag=str(self.tag),
                num_items=len(items),
                processing_seconds=seconds,
                audio_seconds=audio_seconds or None,
                counters=dataclasses.asdict(decoded),
            )
        )
        return outputs

    def _add(self, output: Field, system: str, score: Score, note: str = "") -> None:
        self.parent.measurements.append(
            Measurement(
                split=self.split,
                task=self.tag.name,
                direction=self.tag.direction,
                output=output,
                system=system,
                score=score,
                note="; ".join(filter(None, [note, self._label_note(output)])),
            )
        )

    def _label_note(self, output: Field) -> str:
        reference: Field = "translation" if output.startswith("transl") else "transcript"
        weak = sum(item.label_sources.get(reference) == "pseudo" for item in self.items)
        return f"weak labels: {weak} of {len(self.items)} references were written by a recogniser" if weak else ""

    def _text(self, name: Field) -> None:
        references = [item.texts[name] for item in self.items]
        hypotheses = [output.texts.get(name, "") for output in self.outputs]
        for score in self._text_scores(name, references, hypotheses):
            self._add(name, MODEL, score)

    def _text_scores(self, name: Field, references: list[str], hypotheses: Sequence[str | None]) -> list[Score]:
        is_translation = name == "translation"
        chosen = self.config.translation_normaliser if is_translation else self.config.error_rate_normaliser
        language = self.tag.output_language(name)
        normaliser = make_normaliser(chosen, language)
        metrics = (bleu_for(language), CHRF) if is_translation else error_rates_for(language)
        return [
            m.score(references, hypotheses, normaliser=normaliser, bootstrap=self.config.bootstrap) for m in metrics
        ]

    def _asr_bounds(self) -> None:
        """Floor: the model on another item's speech. Ceiling: the judge on the same speech."""
        references = [item.texts["transcript"] for item in self.items]
        if self.config.with_shuffled_audio:
            others = _shifted(self.items)
            hypotheses: list[str | None] = [None] * len(self.items)
            if others is not None:
                hypotheses = [output.texts.get("transcript", "") for output in self._run(others, None)]
            for score in self._text_scores("transcript", references, hypotheses):
                self._add("transcript", SHUFFLED, score)
        language = self.tag.source_language
        for rank, judge in enumerate(self.parent.judges.all_for(language)):
            items = self.items[: self.config.num_spoken_items]
            heard = self.versions.transcripts(items, "audio", ORIGINAL, judge, language)
            for score in self._text_scores("transcript", references[: len(items)], heard):
                note = f"transcribed by {judge.name}, not by the model"
                self._add("transcript", ORIGINAL, _second_opinion(score, judge) if rank else score, note)

    def _speech(self, name: Field, voices: list[Voice] | None) -> None:
        language = self.tag.output_language(name)
        self.parent.languages.add(language)
        reference_field: Field = "translation" if name == "translated_audio" else "transcript"
        items = self.items
        references = [item.texts.get(reference_field, "") for item in items]
        generated = [played(output.audio) for output in self.outputs]
        for rank, judge in enumerate(self.parent.judges.all_for(language) or [None]):
            for system in [MODEL, *self.versions.names()]:
                reason = self._why_not(system, judge is None, language)
                heard: list[str | None] = [None] * len(items)
                if judge is not None and not reason:
                    # no sound, and sound in which nothing can be heard, are answers, and wrong ones: nothing was said
                    heard = (
                        self._hear(generated, judge, language)
                        if system == MODEL
                        else self.versions.transcripts(items, name, system, judge, language, voices)
                    )
                if system == MODEL and rank == 0:
                    self.heard = heard
                scores = speech_scores(
                    references, heard, language, judge.name if judge else "none", name == "translated_audio",
                    self.config.bootstrap,
                )  # fmt: skip
                note = "circular: the judge is of the family that made the tokens" if self._is_circular(judge) else ""
                for score in scores:
                    named = _second_opinion(score, judge) if judge is not None and rank else score
                    self._add(name, system, dataclasses.replace(named, reason=reason) if reason else named, note)
        if voices is not None and self.parent.embedder is not None:
            self._similarity(name, generated, [voice.source for voice in voices])

    def _why_not(self, system: str, is_unjudged: bool, language: str) -> str:
        if system == MODEL and not self.system.can_speak:
            return "the checkpoint has no codec/ and acoustic/, so it makes no sound"
        return self.parent.judges.why_none(language) if is_unjudged else ""

    def _hear(self, audios: Sequence[Audio | None], judge: Any, language: str) -> list[str | None]:
        present = [audio for audio in audios if audio is not None]
        texts = iter(judge.transcribe(present, language))
        return ["" if audio is None else next(texts) or "" for audio in audios]

    def _is_circular(self, judge: Any) -> bool:
        return judge is not None and shares_tokens(judge, self.system.checkpoint)

    def _similarity(self, name: Field, generated: Sequence[Audio | None], voices: list[AudioSource]) -> None:
        assert self.parent.embedder is not None, "checked by the caller"
        scores = similarity_scores(
            self.parent.embedder, generated, voices, self.items, "audio", self.versions, self.config.bootstrap
        )
        for system, score in scores.items():
            self._add(name, system, score)

    def _keep_samples(self) -> None:
        for i, item in enumerate(self.items[: self.config.num_samples]):
            output = self.outputs[i]
            texts = {"input": item.texts.get("transcript", "")}
            audios: dict[str, Audio] = {}
            if self.tag.source == "audio":
                audios["input"] = load_audio(item.audios["audio"])
            for name in self.tag.targets:
                if name in ("transcript", "translation"):
                    texts[f"reference {name}"], texts[f"output {name}"] = item.texts[name], output.texts.get(name, "")
                    continue
                reference: Field = "translation" if name == "translated_audio" else "transcript"
                texts[f"reference {reference}"] = item.texts.get(reference, "")
                texts["heard by the judge"] = (self.heard[i] or "") if self.heard else ""
                for version in (ORIGINAL, CODEC_COPY):
                    audio = self.versions.audio(item, name, version) if version in self.versions.names() else None
                    audios |= {version: audio} if audio is not None else {}
                audios |= {"generated": said} if (said := played(output.audio)) is not None else {}
            self.parent.samples.append(
                Sample(split=self.split, tag=str(self.tag), item=item.id, texts=texts, audios=audios)
            )


def _load(system: System | str | Path) -> System:
    if not isinstance(system, str | Path):
        return system
    from speechllm.pipelines.system import SpeechSystem

    return SpeechSystem.from_pretrained(system)


def _present_splits(corpus: str | Path, splits: Sequence[str], limits: list[str]) -> list[str]:
    from speechllm.data.prepare import corpus_report

    known = corpus_report(corpus).num_records
    present = [split for split in splits if known.get(split)]
    limits += [f"The corpus has no split {split!r}: not measured." for split in splits if split not in present]
    if not present:
        raise ConfigError(
            f"{corpus} has the splits {sorted(known)}, none of {list(splits)}; name one of them in splits"
        )
    return present


def _tag(names: str, language: str, target: str | None) -> TaskTag | None:
    """Return the tag for a direction; None if it has a target and no task translates, or the other way round."""
    needs_target = any(task.translates for task in TaskTag.of(names, language, target or language).tasks)
    return TaskTag.of(names, language, target) if needs_target == (target is not None) else None


def _second_opinion(score: Score, judge: Judge) -> Score:
    """Return a score under a name of its own: one name is one row of a table."""
    return dataclasses.replace(score, name=f"{score.name} by {judge.name}")


def _shifted(items: Sequence[Item]) -> list[Item] | None:
    """Return for each item the next one that says something else; None if all say the same."""
    shifted = []
    for i, item in enumerate(items):
        others = [o for o in [*items[i + 1 :], *items[:i]] if o.texts["transcript"] != item.texts["transcript"]]
        if not others:
            return None
        shifted.append(others[0])
    return shifted
