"""The steps of run_recorded.py: each reads what earlier ones wrote below `out`, writes its own part, and continues
where a stopped call left off.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from data_prep.spoken_form import held_apart, in_spoken_form, spoken_form
from data_prep.spoken_text import read_lines
from recipes.listening import ListeningConfig, ListeningTest, measure_listening
from recipes.recorded_speech import SoundConfig, make_sound, report_files, report_on
from recipes.train_semantic import SemanticTrainConfig, train_semantic
from recipes.train_unified import train_unified
from recipes.workflow import StepTimes
from speechllm.cli.build import find_plugin
from speechllm.data.mixture import MixtureConfig
from speechllm.data.plain_text import is_plain_text
from speechllm.data.prepare import corpus_report, prepare_corpus, read_corpus
from speechllm.data.tokenize import tokenize_corpus
from speechllm.errors import ConfigError
from speechllm.evaluation.environment import describe_environment
from speechllm.evaluation.evaluate import EvaluationConfig
from speechllm.evaluation.report import read_report_json
from speechllm.hub import load_checkpoint
from speechllm.models.adapters import LoraSettings
from speechllm.models.causal_lm import BaseModelConfig, load_base_lm, num_text_rows
from speechllm.processor import UnifiedProcessor
from speechllm.registry import suggest
from speechllm.segments import PLAIN_TEXT
from speechllm.tasks import TaskTag
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.training.gauges import GaugeConfig, text_perplexity
from speechllm.training.optim import OptimizerConfig
from speechllm.training.text_lm import TextLMConfig, pretrain_text_lm
from speechllm.training.trainer import TrainingConfig
from speechllm.training.unified import UnifiedTrainConfig, history_file
from speechllm.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """One corpus, by the name of its script."""

    script: str
    "As in `speechllm prepare`: pico, spoken-text, asterisk, table, dataset, or a plugin's."
    options: dict[str, Any] = field(default_factory=dict)
    "Keyword arguments of its `records`."


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of the curriculum; it starts from the checkpoint of the one before. See `UnifiedTrainConfig`."""

    mixture: MixtureConfig
    "Tasks and corpora: `folder` is the name of one of the recipe's corpora (for tasks `text` also a file of text)."
    training: TrainingConfig
    "Length, batch, precision."
    optimizer: OptimizerConfig
    "How it steps."
    only_new_rows: bool = False
    "Train the rows of the non-text ids and nothing else."
    lora: LoraSettings | None = None
    "Train adapters and those rows."
    freeze: list[str] = field(default_factory=list)
    "Patterns of names that are not trained."
    unfreeze: list[str] = field(default_factory=list)
    "Exceptions from `freeze`."
    gauges: GaugeConfig | None = None
    "Word error rate on real and shuffled audio, perplexity, translation while it trains; `folder` names a corpus."


@dataclass(frozen=True, kw_only=True)
class SpokenTest:
    """Held-out speech that is scored."""

    corpus: str
    "Name of a corpus of the recipe."
    language: str
    "Language that is scored."
    ceiling: bool = True
    "Whether Whisper, if there is one, is scored too: the slower part on a CPU."


@dataclass(frozen=True, kw_only=True)
class RecordedConfig:
    """The whole recipe."""

    out: str
    "Folder for everything."
    corpora: dict[str, CorpusConfig]
    "By name. Texts are brought into spoken form; records without text, or with one that is held out too, are dropped."
    semantic: SemanticTrainConfig
    "The tokenizer; `corpora` and `out` are filled in."
    base: BaseModelConfig | None = None
    "A text LM that exists; None: `text_lm` is trained."
    text_lm: TextLMConfig = field(default_factory=TextLMConfig)
    "The small LM that is trained on text where there is no `base`."
    extra_text: dict[str, str] = field(default_factory=dict)
    "More text for it by language: files with one sentence a line. Held-out sentences are left out."
    stages: dict[str, StageConfig]
    "The curriculum, in this order."
    tests: dict[str, SpokenTest]
    "What is scored, by name."
    listening: ListeningConfig = field(default_factory=ListeningConfig)
    "How it is scored."
    sound: SoundConfig | None = None
    "A codec and an acoustic model, so that the checkpoint speaks. None: it writes text, and codes that nobody hears."
    evaluation: dict[str, EvaluationConfig] = field(default_factory=dict)
    "By corpus: the tasks of the last stage that are scored, speech by recognisers; reports/<corpus> has each report."
    data_from: str | None = None
    """`out` of another run whose corpora, tokenizer and tokens, under the same names, are used instead of made again;
    so are its codec and acoustic model, if it has them."""
    num_workers: int = 2
    "Steps of preparation that run side by side."

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("stages is empty; name at least one stage of training")
        components = [component for stage in self.stages.values() for component in stage.mixture.components]
        named = [c.folder for c in components if c.tasks != PLAIN_TEXT or not is_plain_text(c.folder)]
        named += [stage.gauges.folder for stage in self.stages.values() if stage.gauges is not None]
        named += [] if self.sound is None else [self.sound.corpus]
        for name in [*named, *(test.corpus for test in self.tests.values()), *self.evaluation]:
            if name not in self.corpora:
                raise ConfigError(
                    f"there is no corpus {name!r}{suggest(name, self.corpora)} (corpora: {', '.join(self.corpora)})"
                )


def prepare(config: RecordedConfig, name: str) -> None:
    """Store one corpus, its texts in spoken form, no training text among the held-out ones, none empty."""
    corpus = config.corpora[name]
    records = in_spoken_form(find_plugin("corpora", corpus.script)(**corpus.options))
    prepare_corpus(held_apart(record for record in records if record.text), corpus_folder(config, name))


def fit_codes(config: RecordedConfig) -> None:
    """Fit the semantic tokenizer on the training audio of all corpora."""
    corpora = [str(corpus_folder(config, name)) for name in config.corpora]
    train_semantic(replace(config.semantic, corpora=corpora, out=str(semantic_folder(config))))


def tokenize(config: RecordedConfig, name: str) -> None:
    """Turn one corpus into codes."""
    tokenizer = SemanticTokenizer.from_pretrained(semantic_folder(config)).to(config.semantic.device or "cpu")
    tokenize_corpus(corpus_folder(config, name), tokenizer, token_folders(config)[name])


def train_text_lm(config: RecordedConfig) -> None:
    """Train the small LM on all training texts and the extra text."""
    held_out = {text for split in ("validation", "test") for _, text in _texts(config, split)}
    texts = [text for _, text in _texts(config, "train")]
    for language, path in config.extra_text.items():
        lines = (spoken_form(line, language) for line in read_lines(Path(path)))
        texts += [line for line in lines if line and line not in held_out]
    tags = tuple(str(TaskTag.of("ASR", language)) for language in sorted({code for code, _ in _texts(config, "train")}))
    text_lm = config.text_lm
    pretrain_text_lm(texts, replace(text_lm, extra_texts=(*text_lm.extra_texts, *tags)), Path(config.out) / "text_lm")


def fit_sound(config: RecordedConfig) -> None:
    """Fit codec and acoustic model."""
    assert config.sound is not None, "a step of recipes that have one"
    name = config.sound.corpus
    make_sound(
        config.sound, corpus_folder(config, name), token_folders(config)[name], semantic_folder(config),
        sound_folder(config),
    )  # fmt: skip


def train(config: RecordedConfig, name: str, before: str | None) -> None:
    """Train one stage, from the stage `before` or from the text LM."""
    stage, tokens = config.stages[name], token_folders(config)
    components = [replace(part, folder=tokens.get(part.folder, part.folder)) for part in stage.mixture.components]
    gauges = None if stage.gauges is None else replace(stage.gauges, folder=tokens[stage.gauges.folder])
    with_sound = before is None and config.sound is not None
    train_unified(
        UnifiedTrainConfig(
            out=str(stage_folder(config, name)),
            mixture=replace(stage.mixture, components=components),
            training=stage.training,
            optimizer=stage.optimizer,
            semantic_tokenizer=str(semantic_folder(config)),
            sound=str(sound_folder(config)) if with_sound else None,
            start_from=None if before is None else str(stage_folder(config, before)),
            model=_base(config),
            only_new_rows=stage.only_new_rows,
            lora=stage.lora,
            freeze=stage.freeze,
            unfreeze=stage.unfreeze,
            gauges=gauges,
        )
    )


def measure(config: RecordedConfig, name: str) -> None:
    """Score the last stage, and compare its perplexity on held-out text with that of the text LM."""
    tokens = token_folders(config)
    tests = [
        ListeningTest(
            name=test,
            corpus=str(corpus_folder(config, chosen.corpus)),
            tokens=tokens[chosen.corpus],
            language=chosen.language,
            ceiling=chosen.ceiling,
        )
        for test, chosen in config.tests.items()
    ]
    checkpoint = load_checkpoint(stage_folder(config, name))
    results = measure_listening(checkpoint, tests, config.listening, list(tokens.values()))
    texts = sorted({text for _, text in _texts(config, "test")})[: config.listening.num_items]
    before, text_tokenizer = load_base_lm(_base(config))
    text_only = UnifiedProcessor(text_tokenizer, Vocabulary.for_speech(num_text_rows(before), 1))
    write_json(
        Path(config.out) / "listening.json",
        {
            "tests": [result.to_dict() for result in results],
            "text_perplexity": {
                "before": text_perplexity(before, text_only, texts),
                "after": text_perplexity(checkpoint.model, checkpoint.processor, texts),
            },
        },
    )


def evaluate(config: RecordedConfig, corpus: str, name: str) -> None:
    """Score the last stage on the tasks that the config names for one corpus."""
    histories = {stage: history_file(stage_folder(config, stage)) for stage in config.stages}
    folder = report_files(Path(config.out), config.evaluation)[corpus].parent
    report_on(stage_folder(config, name), corpus_folder(config, corpus), config.evaluation[corpus], histories, folder)


def finish(config: RecordedConfig, times: Mapping[str, StepTimes]) -> None:
    """Write results.json: what was measured, by what, and what each step took."""
    results = json.loads((Path(config.out) / "listening.json").read_text(encoding="utf-8"))
    reports = {n: read_report_json(path) for n, path in report_files(Path(config.out), config.evaluation).items()}
    kept = ("measurements", "runs", "judges", "limits")
    results["reports"] = {name: {key: report[key] for key in kept} for name, report in reports.items()}
    environment = describe_environment()
    command = environment["command"].replace("run_recorded.py", "python -m recipes.run_recorded")
    results["environment"] = {**environment, "command": command}
    results["steps"] = {name: asdict(step) for name, step in times.items()}
    write_json(Path(config.out) / "results.json", results)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _base(config: RecordedConfig) -> BaseModelConfig:
    return config.base or BaseModelConfig(source=str(Path(config.out) / "text_lm"))


def _texts(config: RecordedConfig, split: str) -> Iterator[tuple[str, str]]:
    """Yield (language, text) of a split of all corpora."""
    for name in config.corpora:
        if split not in corpus_report(corpus_folder(config, name)).num_records:
            continue
        for record in read_corpus(corpus_folder(config, name), split):
            for side in (record, record.translation):
                if side is not None and side.text:
                    yield side.language, side.text


def corpus_folder(config: RecordedConfig, name: str) -> Path:
    """Return where a corpus lies."""
    return Path(config.data_from or config.out) / "corpora" / name


def semantic_folder(config: RecordedConfig) -> Path:
    """Return where the semantic tokenizer lies."""
    return Path(config.data_from or config.out) / "semantic"


def sound_folder(config: RecordedConfig) -> Path:
    """Return where codec and acoustic model lie."""
    given = Path(config.data_from or config.out) / "sound"
    return given if given.is_dir() else Path(config.out) / "sound"


def stage_folder(config: RecordedConfig, name: str) -> Path:
    """Return where the checkpoint of a stage lies."""
    return Path(config.out) / "stages" / name


def token_folders(config: RecordedConfig) -> dict[str, str]:
    """Return where the token shards of each corpus lie."""
    return {name: str(Path(config.data_from or config.out) / "tokens" / name) for name in config.corpora}
