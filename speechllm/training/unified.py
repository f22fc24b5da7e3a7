"""The config of a unified training and its parts, in the order in which a recipe puts them together.

    config = load_config(UnifiedTrainConfig, "config.yaml", ["training.max_steps=200"])
    base = load_extended_lm(config)
    mixture = load_mixture(config.mixture, base.processor)
    trainer = make_trainer(base.model, mixture, config)
    trainer.run()
    save_checkpoint(
        config.out, finished_model(trainer), base.processor, codec=base.codec, acoustic=base.acoustic,
        trained=all_trained_for(base, mixture, config),
    )

(AudioPaLM, arXiv:2306.12925: a text LLM, its matrix extended by audio ids, all parameters trained on tagged tasks.)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from torch import nn
from transformers import PreTrainedModel

from speechllm.config import config_to_dict
from speechllm.data.collate import Collator
from speechllm.data.coverage import trained_for
from speechllm.data.mixture import Mixture, MixtureConfig
from speechllm.data.packing import PackedRows
from speechllm.errors import ConfigError
from speechllm.hub import Checkpoint, load_checkpoint, load_parts
from speechllm.models.adapters import LoraSettings, add_adapters, merge_adapters, train_new_rows_only
from speechllm.models.causal_lm import BaseModelConfig, extend_causal_lm, load_base_lm, num_text_rows
from speechllm.models.embedding_init import RowInit
from speechllm.models.freezing import freeze_modules
from speechllm.processor import UnifiedProcessor
from speechllm.tasks import NOTHING, TrainedFor
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.training.gauges import GaugeCallback, GaugeConfig, Gauges
from speechllm.training.optim import OptimizerConfig
from speechllm.training.sharding import is_sharded, whole_model
from speechllm.training.trainer import TrainingConfig, UnifiedTrainer
from speechllm.vocabulary import Vocabulary

NO_SETTINGS = ("out", "training", "optimizer", "gauges")
"Keys that a run need not have in common with its past (or that the trainer compares by itself)."


@dataclass(frozen=True, kw_only=True)
class UnifiedTrainConfig:
    """Everything that makes a unified LM."""

    out: str
    "Folder of the checkpoint; `<out>.training` holds what an interrupted run continues from."
    mixture: MixtureConfig
    "Tasks, corpora and weights."
    training: TrainingConfig
    "Length and batches."
    semantic_tokenizer: str | None = None
    "Folder of the semantic tokenizer that made the token shards. None only with `start_from`."
    sound: str | None = None
    "Folder with codec/ and acoustic/, which the checkpoint gets to speak with. None: it writes codes and stays mute."
    start_from: str | None = None
    "A speechllm checkpoint (folder or Hub id) to train further; then `model` and `row_init` play no part."
    model: BaseModelConfig = field(default_factory=BaseModelConfig)
    "The text LM to extend."
    row_init: RowInit = "centroid"
    "Where the new rows start."
    lora: LoraSettings | None = None
    "Train adapters and the new rows alone; they are merged before saving. None: all parameters."
    only_new_rows: bool = False
    "Train the rows of the non-text ids and nothing else: a first stage for a pretrained LLM."
    freeze: list[str] = field(default_factory=list)
    "Patterns of parameter or module names that are not trained, as `model.layers.0.*`; `*` is everything."
    unfreeze: list[str] = field(default_factory=list)
    "Patterns of names that are trained although one of `freeze` names them too."
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(kind="muon", learning_rate=4e-3))
    "Optimizer and rates."
    gauges: GaugeConfig | None = None
    "Word error rate, perplexity, translation on held-out rows while training; None: only losses."
    seed: int = 0
    "Of the new rows and of LoRA; `mixture.seed` and `training.seed` rule the rest."

    def __post_init__(self) -> None:
        if self.semantic_tokenizer is None and self.start_from is None:
            raise ConfigError("semantic_tokenizer is missing; give its folder, or start_from an existing checkpoint")
        if self.sound is not None and self.start_from is not None:
            raise ConfigError("sound and start_from are both set; a checkpoint keeps the sound it has, drop sound")
        if self.only_new_rows and self.lora is not None:
            raise ConfigError("only_new_rows and lora are both set; adapters train the trunk, keep one of the two")
        if self.freeze and (self.only_new_rows or self.lora is not None):
            other = "only_new_rows" if self.only_new_rows else "lora"
            raise ConfigError(f"freeze and {other} are both set, but {other} freezes the trunk by itself; drop freeze")
        if self.unfreeze and not self.freeze:
            raise ConfigError("unfreeze is set without freeze; it makes exceptions: say freeze: ['*'] to begin with")


def load_extended_lm(config: UnifiedTrainConfig) -> Checkpoint:
    """Return the LM with rows for all ids, and its processor: from a base LM, or from a checkpoint with all it has."""
    if config.start_from is not None:
        return load_checkpoint(config.start_from)
    assert config.semantic_tokenizer is not None, "checked on construction"
    semantic = SemanticTokenizer.from_pretrained(config.semantic_tokenizer)
    codec, acoustic = None, None
    if config.sound is not None:
        _, codec, acoustic = load_parts(config.sound, tokenizer=semantic)
    model, text_tokenizer = load_base_lm(config.model)
    vocabulary = Vocabulary.for_speech(num_text_rows(model), semantic.codebook_size)
    processor = UnifiedProcessor(text_tokenizer, vocabulary, semantic)
    extend_causal_lm(model, vocabulary, init=config.row_init, centroids=semantic.centroids, seed=config.seed)
    return Checkpoint(model, processor, codec, acoustic, NOTHING)


def make_trainer(model: PreTrainedModel, mixture: Mixture, config: UnifiedTrainConfig) -> UnifiedTrainer:
    """Return the trainer over packed rows of the mixture; with `lora`, over an adapted model.

    Raises:
        ConfigError: what the config wants frozen or in four bits cannot be.
    """
    processor = mixture.processor
    rows = PackedRows(mixture.example, config.training.max_tokens)
    tags = tuple(dict.fromkeys(component.tasks for component in mixture.config.components))
    collator = Collator(pad_id=processor.eos_id, row_tokens=rows.max_tokens, tags=tags)
    trained = with_what_trains(model, processor.vocabulary, config)
    settings = config_to_dict(config)
    trainer = UnifiedTrainer(
        trained, rows, collator, processor.vocabulary, config.training, config.optimizer, training_folder(config),
        settings={name: value for name, value in settings.items() if name not in NO_SETTINGS},
    )  # fmt: skip
    if config.gauges is not None:
        if is_sharded(trainer.accelerator):
            raise ConfigError(
                "gauges decode in one process, which has no whole model under FSDP or ZeRO-3; drop gauges"
            )
        trainer.add_callback(GaugeCallback(Gauges(config.gauges, processor, config.mixture), trainer))
    return trainer


def with_what_trains(model: PreTrainedModel, vocabulary: Vocabulary, config: UnifiedTrainConfig) -> nn.Module:
    """Return the model with adapters around it or parts frozen, as the config says; some ways change it in place."""
    if config.lora is not None:
        return add_adapters(model, vocabulary, config.lora, seed=config.seed)
    if config.only_new_rows:
        return train_new_rows_only(model, vocabulary)
    if config.freeze:
        freeze_modules(model, freeze=config.freeze, unfreeze=config.unfreeze)
    return model


def training_folder(config: UnifiedTrainConfig) -> Path:
    """Return the folder of the training state, beside that of the checkpoint."""
    out = Path(config.out)
    return out.with_name(f"{out.name}.training")


def adapter_folder(config: UnifiedTrainConfig) -> Path:
    """Return where the adapters lie as they were before they were merged."""
    return training_folder(config) / "adapter"


def history_file(out: str | Path) -> Path:
    """Return where the training curve of the checkpoint `out` lies: JSON, a list of logged rows."""
    out = Path(out)
    return out.with_name(f"{out.name}.training") / "history.json"


def save_history(history: Sequence[Mapping[str, float]], out: str | Path) -> None:
    """Keep the training curve beside the checkpoint."""
    path = history_file(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(history), indent=1) + "\n", encoding="utf-8")


def all_trained_for(base: Checkpoint, mixture: Mixture, config: UnifiedTrainConfig) -> TrainedFor | None:
    """Return what the model was trained for in the end: by this mixture, and before it; None if that is not known."""
    if base.trained is None:
        return None
    return base.trained.joined(trained_for(mixture, max_tokens=config.training.max_tokens))


def finished_model(trainer: UnifiedTrainer) -> PreTrainedModel:
    """Return the trained stock causal LM in evaluation mode, adapters merged; every process calls it."""
    return merged_model(whole_model(trainer.accelerator, cast(nn.Module, trainer.model)))


def merged_model(model: nn.Module) -> PreTrainedModel:
    """Return the stock causal LM in evaluation mode, adapters merged if there are any."""
    if hasattr(model, "merge_and_unload"):
        model = merge_adapters(model)
    return cast(PreTrainedModel, model.eval())
