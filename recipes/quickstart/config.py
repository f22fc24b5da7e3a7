"""The quickstart's config: every stage's own config, side by side."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechllm.data.mixture import MixtureComponent
from speechllm.evaluation.evaluate import EvaluationConfig
from speechllm.models.embedding_init import RowInit
from speechllm.tokenizers.ctc_encoder import CTCFeaturesConfig
from speechllm.tokenizers.mel_rvq import MelRVQConfig
from speechllm.tokenizers.semantic import SemanticTokenizerConfig
from speechllm.training.ctc import CTCTrainConfig
from speechllm.training.optim import OptimizerConfig
from speechllm.training.soundstorm import SoundStormStageConfig
from speechllm.training.text_lm import TextLMConfig
from speechllm.training.trainer import TrainingConfig

CONFIG = Path(__file__).with_name("config.yaml")


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """What each step is told. `seed` goes into the LM, its data and SoundStorm; the corpus has its own."""

    corpus: dict[str, Any]
    "Options of data_prep.pico.records: sentences, languages, voices."
    num_texts: int
    "Sentences for the text LM: more than are spoken, as text is easier to come by than speech."
    encoder: CTCTrainConfig
    "The encoder under the semantic codes."
    features: CTCFeaturesConfig = field(default_factory=CTCFeaturesConfig)
    "Which of its layers is cut into codes."
    semantic: SemanticTokenizerConfig
    "How its features become codes."
    codec: MelRVQConfig
    "Acoustic codes."
    acoustic: SoundStormStageConfig
    "From semantic to acoustic codes."
    text_lm: TextLMConfig
    "The LM before it hears anything."
    mixture: list[MixtureComponent]
    "Tasks and their weights; `folder` is relative to the run's folder."
    code_noise: float = 0.0
    "Share of input codes replaced by random ones in training."
    row_init: RowInit = "centroid"
    "Where the new rows start."
    optimizer: OptimizerConfig
    "Of the unified training."
    training: TrainingConfig
    "Length of the unified training."
    evaluation: EvaluationConfig
    "What is scored, on how many items."
    seed: int = 0
    "Of every stage."
