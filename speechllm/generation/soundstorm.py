"""SoundStorm decoding: level after level, the surest frames first.

    codes = soundstorm_decode(model, condition, prompt=None, lengths=lengths, iterations=(16, 1, 1, 1),
                              temperature=1.0, generator=torch.Generator().manual_seed(0))

For level q with N unknown frames and I passes: draw a candidate for each unknown frame, keep the
surest, mask the others again, so that floor(N cos(pi/2 i/I)) are masked after pass i; the last pass
takes the likeliest code everywhere. Levels above q stay masked, levels below q and the prompt are
never touched, a kept code is never revisited. (SoundStorm, arXiv:2305.09636, section 3.4; the
schedule is MaskGIT's, arXiv:2202.04200, section 3.3, with a greedy last pass.)

    I = 4, N = 10:   after pass 1: 9 masked, 2: 7, 3: 3, 4: 0
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from speechllm.errors import ConfigError
from speechllm.models.soundstorm import SoundStorm, TiedCodes
from speechllm.nn.conformer import length_mask

LogitsFunction = Callable[[Tensor, int], Tensor]
"(codes [B, K, T] with MASK, level) -> logits [B, T, N]"


def masked_schedule(num_unknown: int, iterations: int) -> list[int]:
    """Return how many of `num_unknown` frames are still masked after each of the passes.

    floor(N cos(pi/2 i/I)), but each pass keeps at least one frame and leaves at least one to the next:
    N=1500, I=16 gives 1492, 1471, 1435, ..., 147, 0.
    """
    masked, left = [], num_unknown
    for i in range(1, iterations):
        wanted = math.floor(num_unknown * math.cos(math.pi / 2 * i / iterations))
        left = max(0, min(max(wanted, 1), left - 1))
        masked.append(left)
    return [*masked, 0]


def default_iterations(num_codebooks: int, first: int = 16) -> tuple[int, ...]:
    """Return (16, 1, 1, ...): the paper's passes for each level."""
    return (first, *[1] * (num_codebooks - 1))


@torch.no_grad()
def soundstorm_decode(
    model: SoundStorm,
    condition: Int[Tensor, "B T"],
    *,
    prompt: Int[Tensor, "B K P"] | None,
    lengths: Int[Tensor, " B"],
    iterations: Sequence[int],
    temperature: float = 1.0,
    generator: torch.Generator | Sequence[torch.Generator],
) -> Int[Tensor, "B K T"]:
    """Return acoustic codes for `condition`; the first P frames are the prompt, unchanged.

    Exactly sum(iterations) passes of the model. Frames beyond a row's length come back as 0.

    Args:
        model: in evaluation mode.
        condition: semantic codes at the codec's frame rate, those of the prompt included.
        prompt: known codes of the first P frames, all K levels.
        lengths: frames of each row, prompt included.
        iterations: passes for each level.
        temperature: of the draws in all passes but the last; 0 draws the likeliest code.
        generator: one for each row makes a row independent of its batch; or one for all.
    """
    codes, unknown = _behind_prompt(model, condition, prompt, lengths)
    return soundstorm_fill(
        model,
        condition,
        codes,
        unknown,
        lengths=lengths,
        iterations=iterations,
        temperature=temperature,
        generator=generator,
    )


@torch.no_grad()
def soundstorm_fill(
    model: SoundStorm,
    condition: Int[Tensor, "B T"],
    codes: Int[Tensor, "B K T"],
    unknown: Bool[Tensor, "B T"],
    *,
    lengths: Int[Tensor, " B"],
    iterations: Sequence[int],
    temperature: float = 1.0,
    generator: torch.Generator | Sequence[torch.Generator],
) -> Int[Tensor, "B K T"]:
    """Return `codes` with the unknown frames filled, wherever they are; all others are unchanged.

    `codes` may hold anything at unknown frames. The other arguments are those of `soundstorm_decode`.
    """

    def logits_of(codes: Tensor, level: int) -> Tensor:
        return model(condition, codes, lengths, torch.full_like(lengths, level)).logits

    return _fill(logits_of, model, codes, unknown, lengths, iterations, temperature, generator)


@torch.no_grad()
def soundstorm_infill(
    model: SoundStorm,
    condition: Int[Tensor, "B T"],
    codes: Int[Tensor, "B K T"],
    unknown: Bool[Tensor, "B T"],
    *,
    lengths: Int[Tensor, " B"],
    iterations: Sequence[int],
    temperature: float = 1.0,
    generator: torch.Generator | Sequence[torch.Generator],
) -> Int[Tensor, "B K T"]:
    """Return `codes` with the unknown frames filled, where known frames are no prompt but the same utterance.

    While level q is made, the model sees levels up to q of them. So it is in training, where only a prompt, mostly
    other speech, has levels above those of the masked frames: a model may have learnt that sound does not go on where
    frames are known in full. The paper knows no such use. Arguments and result are those of `soundstorm_fill`.
    """

    def logits_of(codes: Tensor, level: int) -> Tensor:
        is_above = torch.arange(codes.shape[1], device=codes.device)[:, None] > level
        codes = codes.masked_fill(is_above, model.mask_id)
        return model(condition, codes, lengths, torch.full_like(lengths, level)).logits

    return _fill(logits_of, model, codes, unknown, lengths, iterations, temperature, generator)


@torch.no_grad()
def fill_at_once(
    model: SoundStorm,
    condition: Int[Tensor, "B T"],
    codes: Int[Tensor, "B K T"],
    unknown: Bool[Tensor, "B T"],
    *,
    lengths: Int[Tensor, " B"],
) -> Int[Tensor, "B K T"]:
    """Fill in a single pass: quantise the frame vectors that a tied model predicts where all codes are masked.

    Not the paper's decoding: nothing is drawn, no frame sees what another became. What is spoken is the expected
    frame, which suits models that were trained for minutes (`SoundStormConfig.at_once`). Arguments and result are
    those of `soundstorm_fill`.

    Raises:
        ConfigError: the model is not tied.
    """
    if not isinstance(model.codes, TiedCodes):
        raise ConfigError("this SoundStorm predicts codes, not vectors (tied: false); use soundstorm_fill")
    T = condition.shape[1]
    unknown = unknown & length_mask(lengths, T)
    masked = codes.masked_fill(unknown[:, None], model.mask_id)
    vectors = model(condition, masked, lengths, torch.zeros_like(lengths)).vectors
    filled = torch.where(unknown[:, None], model.codes.quantise(vectors), masked)
    return filled.masked_fill(~length_mask(lengths, T)[:, None], 0)


def _fill(
    logits_of: LogitsFunction,
    model: SoundStorm,
    codes: Int[Tensor, "B K T"],
    unknown: Bool[Tensor, "B T"],
    lengths: Int[Tensor, " B"],
    iterations: Sequence[int],
    temperature: float,
    generator: torch.Generator | Sequence[torch.Generator],
) -> Int[Tensor, "B K T"]:
    """Mask what is unknown and decode it."""
    B, K, T = codes.shape
    if len(iterations) != K or min(iterations) < 1:
        raise ConfigError(f"iterations = {tuple(iterations)}, expected {K} numbers of passes, each at least 1")
    unknown = unknown & length_mask(lengths, T)
    generators = [generator] * B if isinstance(generator, torch.Generator) else list(generator)
    masked = codes.masked_fill(unknown[:, None], model.mask_id)
    filled = decode_levels(logits_of, masked, unknown, iterations, temperature=temperature, generators=generators)
    return filled.masked_fill(~length_mask(lengths, T)[:, None], 0)


def _behind_prompt(
    model: SoundStorm, condition: Int[Tensor, "B T"], prompt: Int[Tensor, "B K P"] | None, lengths: Int[Tensor, " B"]
) -> tuple[Int[Tensor, "B K T"], Bool[Tensor, "B T"]]:
    """Return codes that begin with the prompt, and which frames are unknown: all behind it."""
    B, T = condition.shape
    K = model.config.num_codebooks
    codes = torch.zeros((B, K, T), dtype=torch.long, device=condition.device)
    unknown = torch.ones_like(condition, dtype=torch.bool)
    if prompt is not None:
        P = prompt.shape[2]
        if prompt.shape[:2] != (B, K) or int(lengths.min()) < P:
            raise ConfigError(
                f"prompt has shape {tuple(prompt.shape)}, expected [{B}, {K}, at most {int(lengths.min())} frames]"
            )
        codes[:, :, :P] = prompt
        unknown[:, :P] = False
    return codes, unknown


def decode_levels(
    logits_of: LogitsFunction,
    codes: Int[Tensor, "B K T"],
    unknown: Bool[Tensor, "B T"],
    iterations: Sequence[int],
    *,
    temperature: float,
    generators: Sequence[torch.Generator],
    noise: float = 0.0,
) -> Int[Tensor, "B K T"]:
    """Fill the unknown frames of `codes`, level by level, from any function that gives logits.

    Args:
        logits_of: the model.
        codes: MASK where unknown.
        unknown: the frames to fill, the same at every level.
        iterations: passes for each level.
        temperature: of the draws.
        generators: one for each row.
        noise: weight tau of Gumbel noise on the confidences, falling to 0 with the passes (MaskGIT's option).
    """
    codes = codes.clone()
    totals = unknown.sum(1).tolist()
    for level, passes in enumerate(iterations):
        schedules = [masked_schedule(total, passes) for total in totals]
        open_frames = unknown.clone()
        for i in range(passes):
            logits = logits_of(codes, level)
            if i == passes - 1:
                chosen, keep = logits.argmax(-1), open_frames
            else:
                tau = noise * (1 - (i + 1) / passes)
                chosen, confidence = _draw(logits, open_frames, temperature, tau, generators)
                keep = _surest(confidence, open_frames, [schedule[i] for schedule in schedules])
            codes[:, level] = torch.where(keep, chosen, codes[:, level])
            open_frames = open_frames & ~keep
    return codes


def _draw(
    logits: Float[Tensor, "B T N"],
    open_frames: Bool[Tensor, "B T"],
    temperature: float,
    tau: float,
    generators: Sequence[torch.Generator],
) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Draw a candidate for each open frame and say how sure the model is of it.

    Noise is drawn for the open frames of a row alone, so padding does not shift it.
    """
    B, T, N = logits.shape
    scores = logits.float().clone()
    confidence_noise = scores.new_zeros(B, T)
    for b, generator in enumerate(generators):
        count = int(open_frames[b].sum())
        if temperature > 0:
            gumbel = _gumbel((count, N), generator)
            scores[b, open_frames[b]] = scores[b, open_frames[b]] / temperature + gumbel.to(scores)
        if tau > 0:
            confidence_noise[b, open_frames[b]] = tau * _gumbel((count,), generator).to(scores)
    chosen = scores.argmax(-1)
    log_p = logits.float().log_softmax(-1).gather(-1, chosen[..., None])[..., 0]
    return chosen, log_p + confidence_noise


def _surest(
    confidence: Float[Tensor, "B T"], open_frames: Bool[Tensor, "B T"], still_masked: Sequence[int]
) -> Bool[Tensor, "B T"]:
    """Return the open frames without the `still_masked[b]` least sure ones of each row."""
    keep = open_frames.clone()
    order = confidence.masked_fill(~open_frames, math.inf).argsort(dim=1, stable=True)
    for b, count in enumerate(still_masked):
        keep[b, order[b, :count]] = False
    return keep


def _gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    return -(-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()
