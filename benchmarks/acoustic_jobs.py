"""The jobs of the acoustic benchmark, and our own models doing them.

    entrant = soundstorm_generation(Sizes())
    entrant.run()                          # 10 s of audio: 27 passes over 500 frames
    entrant.operations / 1e12              # what its model needs for that

    job                      row                                        shape of the model
    SoundStorm, generation   500 frames x 12 levels, 16 + 11 passes     width 512, 6 layers, 8 heads
    SoundStorm, training     4 rows x 250 frames                        the same
    AudioLM, coarse          75 semantic codes, then 150 frames x 4     the same
    AudioLM, fine            150 frames x 4, then 150 frames x 8        the same

Operations are those that the entrant's own weights need for the job: two for each weight that a position is multiplied
with, and those of attention. What a program computes beyond that (logits that nobody reads) does not count.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from speechllm.generation.sampling import SamplingConfig
from speechllm.generation.soundstorm import default_iterations, soundstorm_decode
from speechllm.generation.token_lm import StageRequest, generate_codes
from speechllm.models.soundstorm import SoundStorm, SoundStormConfig
from speechllm.models.stage_layouts import CodeSizes, StageName, stage_layout
from speechllm.models.token_lm import DecoderConfig, StageLMConfig, TokenLM
from speechllm.nn.conformer import ConformerConfig
from speechllm.nn.rvq import RVQConfig
from speechllm.nn.seanet import SEANetConfig
from speechllm.tokenizers.soundstream import SoundStreamCodec, SoundStreamConfig
from speechllm.training.audiolm import TokenLMStage
from speechllm.training.loop import Stage
from speechllm.training.optim import OptimizerConfig, build_optimizer
from speechllm.training.soundstorm import SoundStormStage, SoundStormTrainConfig, padded_length
from speechllm.training.utterances import AcousticUtterance

FRAMES_PER_CONDITION = 2


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of models and jobs, one for all entrants."""

    width: int = 512
    num_layers: int = 6
    num_heads: int = 8
    num_codes: int = 1024
    "Codes of one acoustic level, and semantic codes."
    num_codebooks: int = 12
    num_coarse: int = 4
    frame_rate: float = 50.0
    first_iterations: int = 16
    "SoundStorm's passes for level 0; the others have one each."
    spoken_frames: int = 500
    "What SoundStorm generates."
    batch_size: int = 4
    "Rows of a training step."
    trained_frames: int = 250
    "Frames of a row of SoundStorm's training step."
    stage_frames: int = 150
    "Frames of AudioLM's stages, in generation and in training."
    num_chunks: int = 4
    "Chunks of long audio that the fine stage makes side by side."
    short_frames: int = 6
    "Frames of the fine stage for entrants that are too slow for all."
    codec_width: int = 32
    "Channels C of the codec that makes sound of SoundStorm's codes."
    device: str = "cpu"
    "Where our models are; the peers stay on the CPU."

    @property
    def iterations(self) -> tuple[int, ...]:
        """SoundStorm's passes for each level."""
        return default_iterations(self.num_codebooks, self.first_iterations)

    @property
    def num_fine(self) -> int:
        """Levels of the fine stage."""
        return self.num_codebooks - self.num_coarse


QUICK = Sizes(
    width=32, num_layers=1, num_heads=2, num_codes=16, num_codebooks=3, num_coarse=1, first_iterations=2,
    spoken_frames=10, batch_size=2, trained_frames=10, stage_frames=4, num_chunks=2, short_frames=2, codec_width=4,
)  # fmt: skip


PAPER = Sizes(width=1024, num_layers=12, num_heads=16, spoken_frames=1500, stage_frames=150)
"Those of SoundStorm (arXiv:2305.09636, section 3.2) and AudioLM (arXiv:2209.03143, section 4); 30 s of audio."


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One program doing one job."""

    name: str
    run: Callable[[], object]
    amount: float
    "Seconds of audio, tokens or steps that `run` makes."
    num_weights: int
    "Weights that a position is multiplied with, its head included."
    operations: float
    "Needed for `run`."
    streamed_bytes: float = 0.0
    "Weights and cache that must be read for `run`, where every token needs them anew."
    before: Callable[[], object] | None = None
    "Timed apart and subtracted: the part of `run` that comes before what counts."
    dtype: str = "float32"
    "Of the matrix products: whose ceiling counts."


def soundstorm_generation(sizes: Sizes, *, feed_forward_factor: int = 4, dtype: torch.dtype = torch.float32) -> Entrant:
    """Return our SoundStorm, the paper's form (free tables and heads), decoding one row."""
    model = build_soundstorm(sizes, feed_forward_factor).eval()
    generator = torch.Generator(sizes.device).manual_seed(0)
    T = sizes.spoken_frames
    condition = torch.randint(sizes.num_codes, (1, T), generator=generator, device=sizes.device)

    def run() -> Tensor:
        with torch.autocast(condition.device.type, dtype, enabled=dtype != torch.float32):
            return soundstorm_decode(
                model, condition, prompt=None, lengths=torch.tensor([T], device=sizes.device),
                iterations=sizes.iterations, generator=generator,
            )  # fmt: skip

    weights = soundstorm_weights(model)
    return Entrant(
        name=name_of("speechllm", dtype, "" if feed_forward_factor == 4 else f", feed-forward x {feed_forward_factor}"),
        run=run,
        amount=T / sizes.frame_rate,
        num_weights=weights,
        operations=sum(sizes.iterations) * bidirectional_operations(sizes, weights, T),
        dtype=dtype_name(dtype),
    )


def soundstorm_speech(sizes: Sizes, *, dtype: torch.dtype = torch.float32) -> Entrant:
    """Return `soundstorm_generation` with a SoundStream decoder behind it, in float32: codes and then sound."""
    codes, codec = soundstorm_generation(sizes, dtype=dtype), build_codec(sizes)

    def run() -> Tensor:
        drawn = codes.run()
        assert isinstance(drawn, Tensor), "SoundStorm gives codes"
        return codec.decode(drawn)

    return replace(codes, name=f"{codes.name}, with codec", run=run)


def codec_decoding(sizes: Sizes) -> Entrant:
    """Return the SoundStream decoder alone, on random codes of as many seconds as SoundStorm generates."""
    codec, T = build_codec(sizes), sizes.spoken_frames
    codes = torch.randint(sizes.num_codes, (1, sizes.num_codebooks, T), device=sizes.device)
    return Entrant(
        name="codec alone, fp32", run=lambda: codec.decode(codes), amount=T / sizes.frame_rate,
        num_weights=matrix_weights(codec.decoder), operations=0.0,
    )  # fmt: skip


def soundstorm_training(sizes: Sizes, *, feed_forward_factor: int = 4, dtype: torch.dtype = torch.float32) -> Entrant:
    """Return a step of our SoundStorm's stage: masks, forward, backward, AdamW."""
    model = build_soundstorm(sizes, feed_forward_factor)
    config = SoundStormTrainConfig(
        max_frames=sizes.batch_size * padded_length(sizes.trained_frames), prompt_share=0.0, own_mistakes=0.0
    )
    stage = SoundStormStage(model, utterances(sizes, sizes.trained_frames), config, frame_rate=sizes.frame_rate, seed=0)
    weights = soundstorm_weights(model)
    return Entrant(
        name=name_of("speechllm", dtype, "" if feed_forward_factor == 4 else f", feed-forward x {feed_forward_factor}"),
        run=training_step(stage, model, dtype),
        amount=1,
        num_weights=weights,
        operations=3 * sizes.batch_size * bidirectional_operations(sizes, weights, sizes.trained_frames),
        dtype=dtype_name(dtype),
    )


def stage_generation(
    sizes: Sizes, stage: StageName, *, num_rows: int = 1, dtype: torch.dtype = torch.float32
) -> Entrant:
    """Return our token LM of one AudioLM stage, decoding rows with its cache; its weights are of `dtype`.

    Several rows are what long audio is for the fine stage: chunks, side by side.
    """
    lm = build_stage(sizes, stage).eval().to(dtype)
    generator = np.random.default_rng(0)
    num_prefix, T = len(lm.layout.prefix_blocks), sizes.stage_frames
    prefix_length = {"semantic": 0, "coarse": T // FRAMES_PER_CONDITION, "fine": T}[stage]
    K = lm.layout.num_levels
    requests = [
        StageRequest(
            prefix=generator.integers(sizes.num_codes, size=(num_prefix, prefix_length)),
            given=np.zeros((K, 0), np.int64), min_frames=T, max_frames=T, seed=(row,),
        )
        for row in range(num_rows)
    ]  # fmt: skip

    def run() -> list[np.ndarray]:
        drawn = [one.codes for one in generate_codes(lm, requests, SamplingConfig(temperature=0.8))]
        assert [codes.shape for codes in drawn] == [(K, T)] * num_rows, f"expected {num_rows} of {(K, T)}"
        return drawn

    trunk, head = matrix_weights(lm.trunk.layers), matrix_weights(lm.heads[-1])
    num_given, cache_width = requests[0].prefix.size + 1, 2 * sizes.num_layers * sizes.width
    return Entrant(
        name=f"speechllm, {'fp32' if dtype == torch.float32 else 'bf16'}"
        + (f", {num_rows} rows" if num_rows > 1 else ""),
        run=run,
        amount=num_rows * K * T,
        num_weights=trunk + head,
        operations=num_rows * causal_operations(sizes, trunk, head, num_given, K * T),
        # a token's weights serve all rows; each row has a cache of its own
        streamed_bytes=dtype.itemsize * streamed_numbers(trunk + head, num_rows * cache_width, num_given, K * T),
        dtype=dtype_name(dtype),
    )


def coarse_training(sizes: Sizes, *, dtype: torch.dtype = torch.float32) -> Entrant:
    """Return a step of our coarse stage: forward, backward, AdamW."""
    lm = build_stage(sizes, "coarse")
    stage = TokenLMStage(
        lm,
        utterances(sizes, sizes.stage_frames),
        code_rate=sizes.frame_rate / FRAMES_PER_CONDITION,
        frames_per_condition=FRAMES_PER_CONDITION,
        batch_size=sizes.batch_size,
        seed=0,
    )
    trunk, head = matrix_weights(lm.trunk.layers), matrix_weights(lm.heads[-1])
    num_targets = sizes.num_coarse * sizes.stage_frames
    num_given = sizes.stage_frames // FRAMES_PER_CONDITION + 1
    return Entrant(
        name=name_of("speechllm", dtype),
        run=training_step(stage, lm, dtype),
        amount=1,
        num_weights=trunk + head,
        operations=3 * sizes.batch_size * causal_operations(sizes, trunk, head, num_given, num_targets),
        dtype=dtype_name(dtype),
    )


def training_step(stage: Stage, model: nn.Module, dtype: torch.dtype) -> Callable[[], float]:
    """Return a function that takes one step after another: fresh masks each time."""
    optimizer = build_optimizer(model, OptimizerConfig(kind="adamw"))
    steps = iter(range(1_000_000))
    model.train()
    device = next(model.parameters()).device

    def run() -> float:
        batch = send_to_device(stage.batch(next(steps)), device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss, _ = stage.loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run


def build_soundstorm(sizes: Sizes, feed_forward_factor: int) -> SoundStorm:
    """Return our model with random weights."""
    torch.manual_seed(0)
    trunk = ConformerConfig(
        width=sizes.width, num_layers=sizes.num_layers, num_heads=sizes.num_heads,
        feed_forward_factor=feed_forward_factor,
    )  # fmt: skip
    config = SoundStormConfig(
        num_conditions=sizes.num_codes, num_codebooks=sizes.num_codebooks, codebook_size=sizes.num_codes,
        frames_per_condition=FRAMES_PER_CONDITION, tied=False, trunk=trunk,
    )  # fmt: skip
    return SoundStorm(config).to(sizes.device)


def build_codec(sizes: Sizes) -> SoundStreamCodec:
    """Return a SoundStream of SoundStorm's rate, 320 samples a frame at 16 kHz, with random weights."""
    torch.manual_seed(0)
    config = SoundStreamConfig(
        seanet=SEANetConfig(width=sizes.codec_width, latent_width=16 * sizes.codec_width, strides=(2, 4, 5, 8)),
        quantizer=RVQConfig(num_codebooks=sizes.num_codebooks, codebook_size=sizes.num_codes),
    )
    return SoundStreamCodec(config).eval().to(sizes.device)


def build_stage(sizes: Sizes, stage: StageName) -> TokenLM:
    """Return one stage's LM with random weights; its feed-forward has two thirds of four widths, like the peer's."""
    torch.manual_seed(0)
    layout = stage_layout(
        stage,
        CodeSizes(
            num_conditions=sizes.num_codes, codebook_size=sizes.num_codes, num_codebooks=sizes.num_codebooks,
            num_coarse=sizes.num_coarse,
        ),
    )  # fmt: skip
    inner = -(-8 * sizes.width // 3 // 8) * 8
    decoder = DecoderConfig(
        width=sizes.width, num_layers=sizes.num_layers, num_heads=sizes.num_heads, feed_forward=inner
    )
    config = StageLMConfig(decoder=decoder, window_seconds=sizes.stage_frames / sizes.frame_rate)
    return TokenLM(config, layout).to(sizes.device)


def utterances(sizes: Sizes, num_frames: int) -> list[AcousticUtterance]:
    """Return a batch's worth of random codes, all of one length."""
    generator = np.random.default_rng(0)
    return [
        AcousticUtterance(
            generator.integers(sizes.num_codes, size=num_frames // FRAMES_PER_CONDITION),
            generator.integers(sizes.num_codes, size=(sizes.num_codebooks, num_frames)),
        )
        for _ in range(sizes.batch_size)
    ]


def matrix_weights(module: nn.Module) -> int:
    """Return the weights that a position is multiplied with: matrices and filters, neither norms nor biases."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim >= 2)


def soundstorm_weights(model: SoundStorm) -> int:
    """Return the weights behind one frame's logits of one level."""
    return matrix_weights(model.trunk) + model.config.trunk.width * model.config.codebook_size


def bidirectional_operations(sizes: Sizes, num_weights: int, T: int) -> float:
    """Return the operations of one pass over a row of T frames that all see each other."""
    return T * (2 * num_weights + 4 * T * sizes.width * sizes.num_layers)


def causal_operations(sizes: Sizes, trunk: int, head: int, num_given: int, num_new: int) -> float:
    """Return the operations for `num_new` tokens after `num_given`; the last token is not read again."""
    num_read = num_given + num_new - 1
    pairs = num_read * (num_read + 1) / 2
    return 2 * trunk * num_read + 2 * head * num_new + 4 * pairs * sizes.width * sizes.num_layers


def streamed_numbers(num_weights: int, cache_width: int, num_given: int, num_new: int) -> float:
    """Return the numbers read for `num_new` tokens one by one: all weights for each, and what the cache has by then."""
    cached = num_new * (num_given + (num_new - 1) / 2)
    return num_weights * num_new + cache_width * cached


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name without "torch."."""
    return str(dtype).removeprefix("torch.")


def name_of(package: str, dtype: torch.dtype, extra: str = "") -> str:
    """Return how an entrant is called in the tables."""
    return f"{package}, {'fp32' if dtype == torch.float32 else 'bf16 autocast'}{extra}"
