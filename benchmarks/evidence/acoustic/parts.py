"""What is trained: once corpus, encoder and semantic codes, for every seed the codec and both acoustic models.

    build_codec(0, budget, folders); build_soundstorm_of(0, budget, folders); build_audiolm_of(0, budget, folders)

Each function does nothing where its folder is complete, and the trainings go on from their last checkpoint.
"""

from pathlib import Path

from benchmarks.evidence.acoustic.plan import Budget, Folders
from benchmarks.evidence.acoustic.semantic_stage import build_semantic
from benchmarks.evidence.parts import use_one_thread
from recipes.quickstart import steps
from recipes.workflow import Step
from speechllm.nn.pretrained import CONFIG_FILE
from speechllm.tokenizers.codec import load_codec
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.training.audiolm import AudioLMTrainConfig, train_audiolm
from speechllm.training.codec import train_codec
from speechllm.training.soundstorm import SoundStormStageConfig, frames_per_condition, train_soundstorm


def shared_steps(budget: Budget, folders: Folders) -> list[Step]:
    """Return the quickstart's steps that are needed; none if a run of it is given."""
    if folders.given_quickstart is not None:
        return []
    work = (budget.quickstart_config(), folders.quickstart)
    return [
        Step("corpus", steps.speak_corpus, work),
        Step("encoder", steps.train_encoder, work, needs=("corpus",)),
        Step("tokens", steps.make_tokens, work, needs=("encoder",)),
    ]


def model_steps(seed: int, budget: Budget, folders: Folders) -> list[Step]:
    """Return the trainings of a seed."""
    work = (seed, budget, folders)
    plain = [Step(f"plain-{seed}", build_plain, work, needs=(f"codec-{seed}",))] if seed < budget.num_plain else []
    if seed < budget.num_dialogue_seeds:
        plain.append(Step(f"dialogue-{seed}", build_dialogues_of, work, needs=(f"soundstorm-{seed}",)))
    return [
        Step(f"codec-{seed}", build_codec, work),
        Step(f"soundstorm-{seed}", build_soundstorm_of, work, needs=(f"codec-{seed}",)),
        Step(f"audiolm-{seed}", build_audiolm_of, work, needs=(f"codec-{seed}",)),
        Step(f"semantic-{seed}", build_semantic, work),
        *plain,
    ]


def build_codec(seed: int, budget: Budget, folders: Folders) -> None:
    """Fit the acoustic codes of a seed."""
    use_one_thread()
    if not (folders.codec(seed) / CONFIG_FILE).exists():
        train_codec(folders.corpus, budget.quickstart_config().codec, folders.codec(seed), seed=seed)


def build_soundstorm_of(seed: int, budget: Budget, folders: Folders) -> None:
    """Train SoundStorm of a seed."""
    _train_soundstorm(seed, budget.soundstorm(seed), folders, folders.soundstorm(seed))


def build_dialogues_of(seed: int, budget: Budget, folders: Folders) -> None:
    """Train SoundStorm of a seed further, on dialogues."""
    _train_soundstorm(seed, budget.dialogues(seed, folders.soundstorm(seed)), folders, folders.dialogues(seed))


def _train_soundstorm(seed: int, config: SoundStormStageConfig, folders: Folders, out: Path) -> None:
    use_one_thread()
    if not (out / CONFIG_FILE).exists():
        tokenizer, codec = SemanticTokenizer.from_pretrained(folders.semantic), load_codec(folders.codec(seed))
        train_soundstorm(folders.corpus, tokenizer, codec, config, out, tokens_folder=folders.tokens)


def build_audiolm_of(seed: int, budget: Budget, folders: Folders) -> None:
    """Train AudioLM's coarse and fine stages of a seed."""
    tokenizer, codec = SemanticTokenizer.from_pretrained(folders.semantic), load_codec(folders.codec(seed))
    repeat = frames_per_condition(tokenizer, codec, codec.num_codebooks)
    _train_audiolm(seed, budget.audiolm(seed, repeat), folders, folders.audiolm(seed))


def build_plain(seed: int, budget: Budget, folders: Folders) -> None:
    """Train a coarse stage of a seed as the paper does, with the same steps."""
    _train_audiolm(seed, budget.plain_coarse(seed), folders, folders.plain(seed))


def _train_audiolm(seed: int, config: AudioLMTrainConfig, folders: Folders, out: Path) -> None:
    use_one_thread()
    if not (out / CONFIG_FILE).exists():
        tokenizer, codec = SemanticTokenizer.from_pretrained(folders.semantic), load_codec(folders.codec(seed))
        train_audiolm(folders.corpus, tokenizer, codec, config, out, tokens_folder=folders.tokens)
