"""The other open acoustic models doing the jobs of the benchmark, through their public classes.

    if SOUNDSTORM.version is not None:
        soundstorm_generation(Sizes()).run()

soundstorm-pytorch and audiolm-pytorch (lucidrains, MIT) are no dependencies of this project. Their modules are imported
when they are asked for, so that the benchmark runs without them. Their own defaults stand wherever a job does not say
otherwise: heads of 64, feed-forward of 4 widths, top-k of 30 % and 10 %, dropout 0.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.acoustic_jobs import (
    FRAMES_PER_CONDITION,
    Entrant,
    Sizes,
    bidirectional_operations,
    causal_operations,
    matrix_weights,
    streamed_numbers,
)

SAMPLE_RATE = 16_000
"Of the imaginary audio: the peers want rates as samples per code."


@dataclass(frozen=True)
class Peer:
    """A package that may be installed."""

    package: str

    @property
    def version(self) -> str | None:
        """Return the installed version; None: it is not there."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None

    def module(self) -> Any:
        """Import it."""
        return importlib.import_module(self.package.replace("-", "_"))


SOUNDSTORM, AUDIOLM = Peer("soundstorm-pytorch"), Peer("audiolm-pytorch")


def soundstorm_generation(sizes: Sizes) -> Entrant:
    """Return soundstorm-pytorch decoding one row."""
    model, weights = _soundstorm(sizes)
    T = sizes.spoken_frames
    condition = _codes(sizes, 1, T // FRAMES_PER_CONDITION)

    def run() -> Tensor:
        codes = model.generate(cond_semantic_token_ids=condition)
        assert codes.numel() == T * sizes.num_codebooks, f"{codes.numel()} codes, expected {T * sizes.num_codebooks}"
        return codes

    return Entrant(
        name=_name(SOUNDSTORM),
        run=run,
        amount=T / sizes.frame_rate,
        num_weights=weights,
        operations=sum(sizes.iterations) * bidirectional_operations(sizes, weights, T),
    )


def soundstorm_training(sizes: Sizes) -> Entrant:
    """Return a training step of soundstorm-pytorch."""
    model, weights = _soundstorm(sizes)
    T = sizes.trained_frames
    condition = _codes(sizes, sizes.batch_size, T // FRAMES_PER_CONDITION)
    codes = _codes(sizes, sizes.batch_size, T, sizes.num_codebooks)
    # The model writes its masks into the codes that it is given.
    return Entrant(
        name=_name(SOUNDSTORM),
        run=_training_step(model, lambda: model(codes.clone(), cond_semantic_token_ids=condition)[0]),
        amount=1,
        num_weights=weights,
        operations=3 * sizes.batch_size * bidirectional_operations(sizes, weights, T),
    )


def coarse_generation(sizes: Sizes) -> Entrant:
    """Return audiolm-pytorch's coarse stage decoding one row with its cache."""
    stage = _coarse(sizes)
    T, K = sizes.stage_frames, sizes.num_coarse
    semantic = _codes(sizes, 1, T // FRAMES_PER_CONDITION)
    num_given, num_new = semantic.shape[1] + 2, K * T
    trunk, head, cache = _stage_weights(stage.transformer, stage.transformer.coarse_logit_weights)
    return Entrant(
        name=_name(AUDIOLM),
        run=lambda: stage.generate(semantic_token_ids=semantic, max_time_steps=T),
        amount=num_new,
        num_weights=trunk + head,
        operations=causal_operations(sizes, trunk, head, num_given, num_new),
        streamed_bytes=4 * streamed_numbers(trunk + head, cache, num_given, num_new),
    )


def fine_generation(sizes: Sizes) -> Entrant:
    """Return audiolm-pytorch's fine stage, too slow for a whole row: some tokens after a context of typical length.

    A step of it takes time that grows with the square of what came before. So the context is about as long as the
    root mean square over a whole row: with as many coarse codes, 0.7 of the row. What comes before the tokens that
    count is timed apart.
    """
    module = _audiolm(sizes)
    transformer = module.FineTransformer(
        codebook_size=sizes.num_codes, num_coarse_quantizers=sizes.num_coarse, num_fine_quantizers=sizes.num_fine,
        dim=sizes.width, depth=sizes.num_layers, heads=sizes.num_heads,
    )  # fmt: skip
    stage = module.FineTransformerWrapper(transformer=transformer, codec=_codec(sizes))
    stop = max(sizes.short_frames + 1, round(0.7 * sizes.stage_frames))
    start = stop - sizes.short_frames
    coarse = _codes(sizes, 1, stop, sizes.num_coarse)
    fine = _codes(sizes, 1, (start - 1) * sizes.num_fine)

    def generate(num_frames: int) -> Tensor:
        codes = stage.generate(coarse_token_ids=coarse[:, :num_frames], prime_fine_token_ids=fine)
        assert codes.shape[1] == num_frames, f"{codes.shape[1]} frames, expected {num_frames}"
        return codes

    num_given, num_new = coarse.numel() + 2 + fine.numel() + sizes.num_fine, sizes.short_frames * sizes.num_fine
    trunk, head, cache = _stage_weights(transformer, transformer.fine_logit_weights)
    whole = causal_operations(sizes, trunk, head, num_given, num_new)
    return Entrant(
        name=f"{_name(AUDIOLM)}, {num_new} tokens after {num_given:,}",
        run=lambda: generate(stop),
        before=lambda: generate(start),
        amount=num_new,
        num_weights=trunk + head,
        operations=whole - causal_operations(sizes, trunk, head, num_given, 1),
        streamed_bytes=4 * streamed_numbers(trunk + head, cache, num_given, num_new),
    )


def coarse_training(sizes: Sizes) -> Entrant:
    """Return a training step of audiolm-pytorch's coarse stage."""
    stage = _coarse(sizes)
    T, K = sizes.stage_frames, sizes.num_coarse
    semantic = _codes(sizes, sizes.batch_size, T // FRAMES_PER_CONDITION)
    coarse = _codes(sizes, sizes.batch_size, T, K)
    trunk, head, _ = _stage_weights(stage.transformer, stage.transformer.coarse_logit_weights)
    return Entrant(
        name=_name(AUDIOLM),
        run=_training_step(
            stage, lambda: stage(semantic_token_ids=semantic, coarse_token_ids=coarse, return_loss=True)
        ),
        amount=1,
        num_weights=trunk + head,
        operations=3 * sizes.batch_size * causal_operations(sizes, trunk, head, semantic.shape[1] + 2, K * T),
    )


def _soundstorm(sizes: Sizes) -> tuple[Any, int]:
    """Return the model and the weights behind one frame's logits of one level."""
    module = SOUNDSTORM.module()
    torch.manual_seed(0)
    network = module.ConformerWrapper(
        codebook_size=sizes.num_codes,
        num_quantizers=sizes.num_codebooks,
        conformer={"dim": sizes.width, "depth": sizes.num_layers, "heads": sizes.num_heads},
    )
    samples_per_frame = round(SAMPLE_RATE / sizes.frame_rate)
    model = module.SoundStorm(
        network,
        steps=sizes.first_iterations,
        schedule="cosine",
        num_semantic_token_ids=sizes.num_codes,
        wav2vec_target_sample_hz=SAMPLE_RATE,
        wav2vec_downsample_factor=samples_per_frame * FRAMES_PER_CONDITION,
        codec_target_sample_hz=SAMPLE_RATE,
        codec_downsample_factor=samples_per_frame,
    )
    # Behind its trunk it has a matrix for each level, then that level's logits.
    return model, matrix_weights(network.conformer) + sizes.width**2 + sizes.width * sizes.num_codes


def _coarse(sizes: Sizes) -> Any:
    module = _audiolm(sizes)
    transformer = module.CoarseTransformer(
        codebook_size=sizes.num_codes, num_coarse_quantizers=sizes.num_coarse, num_semantic_tokens=sizes.num_codes,
        dim=sizes.width, depth=sizes.num_layers, heads=sizes.num_heads,
    )  # fmt: skip
    # Repeats are kept, as in our stage: random codes have next to none.
    return module.CoarseTransformerWrapper(transformer=transformer, codec=_codec(sizes), unique_consecutive=False)


def _audiolm(sizes: Sizes) -> Any:
    """Return the module, ready to build stages: they ask the Hub for a text encoder's config that is not used here."""
    from transformers import T5Config

    module = AUDIOLM.module()
    text = importlib.import_module(f"{module.__name__}.t5")
    text.T5_CONFIGS[text.DEFAULT_T5_NAME] = {"config": T5Config(d_model=sizes.width)}
    torch.manual_seed(0)
    return module


def _codec(sizes: Sizes) -> Any:
    """Return a codec that is never run: the stages ask it for its number of levels."""
    return AUDIOLM.module().SoundStream(
        codebook_size=sizes.num_codes, rq_num_quantizers=sizes.num_codebooks, channels=2, use_local_attn=False
    )


def _stage_weights(transformer: Any, heads: Tensor) -> tuple[int, int, int]:
    """Return the weights of the layers, of one level's head, and the width of what is cached for a position.

    The learnt position bias is left out: it depends on no token.
    """
    layers = transformer.transformer.layers
    cache = sum(len(weight) for name, weight in layers.named_parameters() if name.endswith("to_kv.weight"))
    return matrix_weights(layers), heads[0].numel(), cache


def _training_step(model: nn.Module, loss_of: Callable[[], Tensor]) -> Callable[[], float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    model.train()

    def run() -> float:
        loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run


def _codes(sizes: Sizes, *shape: int) -> Tensor:
    return torch.randint(sizes.num_codes, shape, generator=torch.Generator().manual_seed(0))


def _name(peer: Peer) -> str:
    return f"{peer.package} {peer.version}, fp32"
