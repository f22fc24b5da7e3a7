"""Which program each YAML below recipes/ is for."""

from pathlib import Path
from typing import Any

from recipes.quickstart.config import QuickstartConfig
from recipes.recorded_steps import RecordedConfig
from recipes.sweep import SweepConfig
from recipes.train_audiolm import AudioLMRecipeConfig
from recipes.train_codec import CodecRecipeConfig
from recipes.train_semantic import SemanticTrainConfig
from recipes.train_soundstorm import SoundStormRecipeConfig
from speechllm.evaluation.evaluate import EvaluationConfig
from speechllm.training.unified import UnifiedTrainConfig

RECIPES = Path(__file__).parents[2] / "recipes"
RECIPE_CONFIGS: dict[str, tuple[str, Any]] = {
    "asr_lora_librispeech": ("unified", UnifiedTrainConfig),
    "audiolm_16khz": ("audiolm", AudioLMRecipeConfig),
    "audiolm_small": ("audiolm", AudioLMRecipeConfig),
    "audiopalm_ablations": ("sweep", SweepConfig),
    "audiopalm_covost2": ("unified", UnifiedTrainConfig),
    "codec_16khz": ("codec", CodecRecipeConfig),
    "embedding_inits": ("sweep", SweepConfig),
    "llm_1b": ("unified", UnifiedTrainConfig),
    "llm_8b": ("unified", UnifiedTrainConfig),
    "own_data": ("unified", UnifiedTrainConfig),
    "quickstart": ("quickstart", QuickstartConfig),
    "recorded_small": ("recorded", RecordedConfig),
    "s2st_mix": ("unified", UnifiedTrainConfig),
    "smollm2_whisper": ("recorded", RecordedConfig),
    "soundstorm_16khz": ("soundstorm", SoundStormRecipeConfig),
    "tts_libritts": ("unified", UnifiedTrainConfig),
}
"By folder: the recipe that its YAML files are for, and the class of that recipe's config."
BY_NAME: dict[str, Any] = {"semantic.yaml": SemanticTrainConfig, "evaluation.yaml": EvaluationConfig}
"Files that mean the same in every folder."
RECIPE_FILES = sorted(path for path in RECIPES.rglob("*.yaml") if path.parent.name != "accelerate")


def config_class(path: Path) -> Any:
    """Return the class of a shipped config."""
    return BY_NAME.get(path.name) or RECIPE_CONFIGS[path.parent.name][1]
