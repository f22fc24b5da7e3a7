"""AudioLM's first stage, trained on the semantic codes of the corpus, and the whole AudioLM that it completes.

    build_semantic(0, budget, folders)                        # models/0/semantic
    lm = load_semantic(0, folders, num_codes=2048)            # a TokenLM over semantic codes
    whole = with_semantic(world.audiolm, lm)                  # an AudioLM that continues speech

    a row    BOS sentence sentence sentence EOS               one speaker, `joined_seconds` or a little more

The corpus has no recording longer than a sentence, so that sentences are laid end to end, `num_joinings` times in other
orders: all there is to learn beyond a sentence is that another one begins. Repeats are removed as in the paper
(arXiv:2209.03143, section 4). At 12.5 codes a second hardly any code repeats, so that the coarse stage, which goes by
durations, can speak what this one writes as if each code lasted once.
"""

from dataclasses import replace

import numpy as np
import torch

from benchmarks.evidence.acoustic.plan import Budget, Folders
from benchmarks.evidence.acoustic.world import LANGUAGE
from benchmarks.evidence.parts import use_one_thread
from speechllm.config import build_config, config_to_dict
from speechllm.data.tokenize import read_tokens
from speechllm.models.audiolm import AudioLM
from speechllm.models.stage_init import start_stage_at_vectors
from speechllm.models.stage_layouts import CodeSizes, StageLayout, remove_repeats, stage_layout
from speechllm.models.token_lm import DecoderConfig, StageLMConfig, TokenLM
from speechllm.nn.pretrained import CONFIG_FILE, filled_model, read_folder, write_folder
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.training.audiolm import TokenLMStage, join_speakers
from speechllm.training.loop import LoopConfig, train_stage
from speechllm.training.optim import OptimizerConfig
from speechllm.training.utterances import AcousticUtterance

KIND = "semantic-stage"


def build_semantic(seed: int, budget: Budget, folders: Folders) -> None:
    """Train the semantic stage of a seed."""
    use_one_thread()
    out, plan = folders.semantic_stage(seed), budget.language
    if (out / CONFIG_FILE).exists():
        return
    tokenizer = SemanticTokenizer.from_pretrained(folders.semantic)
    rows = training_rows(folders, budget, tokenizer.frame_rate, seed)
    lm = fresh_stage(rows, tokenizer, budget, seed)
    stage = TokenLMStage(
        lm, rows, code_rate=tokenizer.frame_rate, frames_per_condition=1, batch_size=plan.batch_size,
        code_noise=plan.code_noise, seed=seed,
    )  # fmt: skip
    loop = LoopConfig(
        steps=plan.steps,
        warmup_steps=min(20, plan.steps // 2),
        optimizer=OptimizerConfig(kind="muon", learning_rate=plan.learning_rate),
        bf16=True,
        progress=False,
    )
    train_stage(stage, loop, out / "run", heads=lm.heads.parameters())
    write_folder(out, {"kind": KIND, "config": config_to_dict(lm.config)}, lm.state_dict())


def training_rows(folders: Folders, budget: Budget, frame_rate: float, seed: int) -> list[AcousticUtterance]:
    """Return English speech of the training split, sentences of a speaker end to end; there are no acoustic codes."""
    sentences = [
        AcousticUtterance(codes, np.zeros((0, len(codes)), np.int64), speaker)
        for row in read_tokens(folders.tokens, "train")
        for language, codes, speaker in (
            (row.language, row.codes, row.speaker),
            (row.translation_language, row.translation_codes, row.translation_speaker),
        )
        if language == LANGUAGE and codes is not None
    ]
    num_codes = round(budget.language.joined_seconds * frame_rate)
    return [
        row
        for turn in range(budget.language.num_joinings)
        for row in join_speakers(sentences, num_codes, frames_per_condition=1, seed=1_000 * seed + turn)
    ]


def fresh_stage(rows: list[AcousticUtterance], tokenizer: SemanticTokenizer, budget: Budget, seed: int) -> TokenLM:
    """Return an untrained stage whose window holds every row whole."""
    total = sum(len(row.semantic) for row in rows)
    kept = sum(len(remove_repeats(row.semantic)[0]) for row in rows)
    config = StageLMConfig(
        decoder=DecoderConfig(
            width=budget.width, num_layers=budget.num_layers, num_heads=4, feed_forward=8 * budget.width // 3 // 8 * 8
        ),
        window_seconds=max(len(row.semantic) for row in rows) / tokenizer.frame_rate,
        dedup=True,
        tokens_per_second=tokenizer.frame_rate * kept / total,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lm = TokenLM(config, semantic_layout(tokenizer.codebook_size))
    generator = torch.Generator().manual_seed(seed)
    start_stage_at_vectors(lm, tokenizer.centroids, torch.zeros(0, 1, 1), generator=generator)
    return lm


def load_semantic(seed: int, folders: Folders, *, num_codes: int) -> TokenLM:
    """Return the stage of a seed, in evaluation mode."""
    saved, tensors = read_folder(folders.semantic_stage(seed), KIND)
    lm = TokenLM(build_config(StageLMConfig, saved["config"]), semantic_layout(num_codes))
    return filled_model(lm, tensors, folders.semantic_stage(seed))


def with_semantic(model: AudioLM, lm: TokenLM) -> AudioLM:
    """Return an AudioLM of this stage and of the model's coarse and fine ones, whose weights it shares."""
    # The coarse stage that reads what this one writes knows no removal of repeats.
    config = replace(model.config, semantic=replace(lm.config, dedup=False, tokens_per_second=None))
    whole = AudioLM(config)
    assert whole.semantic is not None, "the config has one"
    whole.semantic.load_state_dict(lm.state_dict())
    whole.coarse, whole.fine = model.coarse, model.fine
    return whole.eval()


def semantic_layout(num_codes: int) -> StageLayout:
    """Return the layout of a semantic stage, in which there are no acoustic codes."""
    sizes = CodeSizes(num_conditions=num_codes, codebook_size=2, num_codebooks=1, num_coarse=1)
    return stage_layout("semantic", sizes)
