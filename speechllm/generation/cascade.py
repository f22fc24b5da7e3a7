"""From semantic codes to waveforms: SoundStorm in a voice, then the codec.

    audios = synthesize([codes_a, codes_b], acoustic, codec, voice=voice, seed=0)

    condition   v v v v v | s s s s s s s s      each semantic code repeated to the codec's rate
    acoustic    V V V V V | # # # # # # # #      the prompt's frames are known, and dropped at the end

An utterance depends on its codes, the voice and the seed, not on the others that it is made with.
(AudioPaLM, arXiv:2306.12925, section 3.3.)
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from speechllm.audio import Audio
from speechllm.errors import CheckpointError, VocabularyError
from speechllm.generation.soundstorm import default_iterations, soundstorm_at_once, soundstorm_decode
from speechllm.generation.voice import VoicePrompt
from speechllm.models.soundstorm import SoundStorm
from speechllm.tokenizers.codec import Codec


def synthesize(
    semantic_codes: Sequence[np.ndarray],
    acoustic: SoundStorm,
    codec: Codec,
    *,
    voice: VoicePrompt | Sequence[VoicePrompt] | None,
    seed: int,
    first_iterations: int = 16,
    temperature: float | None = None,
    max_batch_frames: int = 4_000,
) -> list[Audio]:
    """Return one waveform for each array of semantic codes; no codes give an empty waveform.

    Args:
        semantic_codes: int [T] each, not deduplicated.
        acoustic: the SoundStorm, trained with this codec.
        codec: turns acoustic codes into sound.
        voice: a prompt for all, one for each, or None: a voice is drawn.
        seed: of all draws.
        first_iterations: passes for the first level; the others take one each. A model with `at_once` takes one pass
            for all levels and draws nothing.
        temperature: of the draws at the first level; None: the model's own (`SoundStormConfig.temperature`).
        max_batch_frames: codec frames decoded at once, prompts and padding included.

    Raises:
        CheckpointError: SoundStorm was trained with another codec.
        VocabularyError: a code is outside the semantic codebook.
    """
    _require_match(acoustic, codec)
    voices = [voice] * len(semantic_codes) if voice is None or isinstance(voice, VoicePrompt) else list(voice)
    rows = [_row(codes, v, acoustic) for codes, v in zip(semantic_codes, voices, strict=True)]
    audios = [Audio(np.zeros(0, np.float32), codec.sample_rate)] * len(rows)
    temperature = acoustic.config.temperature if temperature is None else temperature
    iterations = default_iterations(acoustic.config.num_codebooks, first_iterations)
    for batch in _batches(rows, max_batch_frames):
        codes = _decode_rows([rows[i] for i in batch], acoustic, iterations, temperature, seed)
        for i, row_codes in zip(batch, codes, strict=True):
            # One at a time: a codec may carry sound across the padding of a batch.
            with torch.no_grad():
                waveform = codec.decode(row_codes[None])[0]
            audios[i] = Audio(waveform.cpu().numpy(), codec.sample_rate)
    return audios


class _Row:
    """Condition [T] at the codec's rate and prompt [K, P] of one utterance."""

    def __init__(self, condition: np.ndarray, prompt: np.ndarray):
        self.condition, self.prompt = condition, prompt

    @property
    def num_new_frames(self) -> int:
        return len(self.condition) - self.prompt.shape[1]


def _row(codes: np.ndarray, voice: VoicePrompt | None, acoustic: SoundStorm) -> _Row:
    config = acoustic.config
    codes = np.asarray(codes, dtype=np.int64)
    prompt = np.zeros((config.num_codebooks, 0), np.int64)
    if voice is not None:
        codes = np.concatenate((voice.semantic_codes, codes))
        prompt = voice.acoustic_codes[: config.num_codebooks]
    if codes.size and not 0 <= codes.min() <= codes.max() < config.num_conditions:
        raise VocabularyError(
            f"semantic codes range over {codes.min()}..{codes.max()}, expected 0..{config.num_conditions - 1}; "
            "were they made by another tokenizer?"
        )
    return _Row(np.repeat(codes, config.frames_per_condition), prompt)


def _decode_rows(
    rows: Sequence[_Row], acoustic: SoundStorm, iterations: Sequence[int], temperature: float, seed: int
) -> Iterator[torch.Tensor]:
    """Yield the new frames' codes [K, T] of each row. All rows have prompts of one length."""
    device = acoustic.condition.weight.device
    lengths = torch.tensor([len(row.condition) for row in rows], device=device)
    condition = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long, device=device)
    for b, row in enumerate(rows):
        condition[b, : len(row.condition)] = torch.from_numpy(row.condition)
    P = rows[0].prompt.shape[1]
    prompt = torch.from_numpy(np.stack([row.prompt for row in rows])).to(device)
    if acoustic.config.at_once:
        codes = soundstorm_at_once(acoustic, condition, prompt=prompt, lengths=lengths)
    else:
        codes = soundstorm_decode(
            acoustic,
            condition,
            prompt=prompt,
            lengths=lengths,
            iterations=iterations,
            temperature=temperature,
            # The same noise for each row: none depends on its place in the batch.
            generator=[torch.Generator().manual_seed(seed) for _ in rows],
        )
    for row, row_codes in zip(rows, codes, strict=True):
        yield row_codes[:, P : P + row.num_new_frames]


def _batches(rows: Sequence[_Row], max_frames: int) -> Iterator[list[int]]:
    """Group rows with something to make by length of prompt, then by length."""
    order = sorted(
        (i for i, row in enumerate(rows) if row.num_new_frames > 0),
        key=lambda i: (rows[i].prompt.shape[1], len(rows[i].condition)),
    )
    batch: list[int] = []
    for i in order:
        same_prompt = not batch or rows[i].prompt.shape[1] == rows[batch[0]].prompt.shape[1]
        if batch and not (same_prompt and len(rows[i].condition) * (len(batch) + 1) <= max_frames):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _require_match(acoustic: SoundStorm, codec: Codec) -> None:
    expected = acoustic.config.codec_fingerprint
    if expected and expected != codec.fingerprint:
        raise CheckpointError(
            f"SoundStorm was trained with codec {expected}, this one is {codec.fingerprint}; "
            "use the two that were made together"
        )
