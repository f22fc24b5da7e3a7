"""Train the CTC encoder of the semantic tokenizer on a prepared corpus, in any mix of languages.

    encoder, report = train_ctc_encoder("corpus", CTCTrainConfig(), "runs/ctc")
    features = CTCFeatures(encoder)

Spectrograms are made once and held in memory (58 MB an hour). Each batch is warped in tempo and in frequency
(vocal tract length: Jaitly and Hinton, ICML workshop 2013) and masked (SpecAugment, arXiv:1904.08779), so that
voices matter less.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from speechllm.audio import load_audio
from speechllm.data.prepare import read_corpus
from speechllm.errors import DataError
from speechllm.nn.conformer import ConformerConfig
from speechllm.tokenizers.ctc_encoder import BLANK, CTCEncoder, CTCEncoderConfig, CTCOutput, save_ctc_encoder
from speechllm.tokenizers.mel import LogMel, LogMelConfig
from speechllm.training.loop import LoopConfig, LoopReport, save_once, train_stage
from speechllm.training.optim import OptimizerConfig

LENGTH_MULTIPLE = 4
"Batches are padded to a multiple of so many frames of the encoder."


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How spectrograms are disturbed in training.

    The defaults are for minutes of training, where masks cost more than they give: on 1.4 hours of speech, greedy CTC
    WER on unseen sentences was 45 with two masks of each kind, 29 with one, 19 with none (one run each, 110 to 180 CPU
    seconds, rates and batch sizes differing). Long trainings want masks (SpecAugment, arXiv:1904.08779).
    """

    tempo: float = 0.1
    "Each utterance is stretched by a factor between 1 / (1 + tempo) and 1 + tempo."
    frequency_warp: float = 0.12
    "Its mel axis is stretched by a factor between 1 / (1 + warp) and 1 + warp."
    num_band_masks: int = 0
    "Masks over bands."
    band_mask: float = 0.15
    "Widest of them, as a share of the bands."
    num_time_masks: int = 0
    "Masks over time."
    time_mask: float = 0.1
    "Longest of them, as a share of the utterance."


@dataclass(frozen=True, kw_only=True)
class CTCTrainConfig:
    """The encoder, its data and its training."""

    frame_rate: float = 12.5
    "Frames per second of the encoder, and of the codes made from it."
    emissions_per_frame: int = 3
    "Symbols that each frame emits."
    num_mels: int = 80
    "Mel bands."
    stem_width: int = 128
    "Channels between spectrogram and trunk."
    trunk: ConformerConfig = field(
        default_factory=lambda: ConformerConfig(width=256, num_layers=4, num_heads=4, kernel_size=7)
    )
    "The Conformer. No dropout: its random numbers took a fifth of a step on a CPU, and the warps regularise."
    batch_size: int = 16
    "Utterances in a batch, of about one length."
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    "How spectrograms are disturbed."
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=420,
            warmup_steps=30,
            optimizer=OptimizerConfig(kind="muon", learning_rate=3e-3, weight_decay=0.01),
            bf16=True,
        )
    )
    "Steps, optimizer, checkpoints."


def train_ctc_encoder(
    corpus_folder: str | Path, config: CTCTrainConfig, folder: str | Path, *, split: str = "train"
) -> tuple[CTCEncoder, LoopReport]:
    """Train on every utterance with text in a prepared corpus, both sides of pairs; resumes from `folder`.

    Raises:
        DataError: the corpus has no utterance with text, or none that is long enough for its text.
    """
    mels, texts = load_spectrograms(corpus_folder, config.num_mels, split)
    stage = CTCStage(mels, texts, config)
    report = train_stage(stage, config.loop, folder, heads=stage.encoder.head.parameters())
    encoder = stage.encoder.eval()
    save_once(lambda: save_ctc_encoder(encoder, Path(folder) / "encoder"))
    return encoder, report


def load_spectrograms(corpus_folder: str | Path, num_mels: int, split: str) -> tuple[list[Tensor], list[str]]:
    """Return the log-mel spectrogram, float16 [M, T], and the text of each utterance that has both."""
    mel_config = LogMelConfig(num_mels=num_mels)
    log_mel = LogMel(mel_config)
    mels: list[Tensor] = []
    texts: list[str] = []
    for record in read_corpus(corpus_folder, split):
        for side in (record, record.translation):
            if side is None or side.audio is None or not side.text:
                continue
            samples = load_audio(side.audio, mel_config.sample_rate).samples
            mels.append(log_mel(torch.from_numpy(samples)[None])[0].half())
            texts.append(side.text)
    if not mels:
        raise DataError(f"split {split!r} of {corpus_folder} has no utterance with text; CTC needs transcripts")
    return mels, texts


class CTCStage:
    """The stage for `train_stage`: batch i is a function of (seed, i)."""

    def __init__(self, mels: list[Tensor], texts: list[str], config: CTCTrainConfig):
        torch.manual_seed(config.loop.seed)
        encoder_config = CTCEncoderConfig(
            symbols="".join(sorted(set("".join(texts)))),
            frame_rate=config.frame_rate,
            emissions_per_frame=config.emissions_per_frame,
            num_mels=config.num_mels,
            stem_width=config.stem_width,
            trunk=config.trunk,
        )
        self.encoder = CTCEncoder(encoder_config)
        self.model: nn.Module = self.encoder
        self.config, self._mels = config, mels
        self._targets = [torch.tensor(self.encoder.indices(text)) for text in texts]
        # Between equal symbols CTC wants a blank.
        self._needed = [len(target) + int((target[1:] == target[:-1]).sum()) for target in self._targets]
        self._pooling, self._floor = self.encoder.pooling, float(np.log(self.encoder.mel_config.floor))
        self._plan: tuple[int, list[np.ndarray]] = (-1, [])
        emissions = [-(-mel.shape[1] // self._pooling) * config.emissions_per_frame for mel in mels]
        if all(had < needed for had, needed in zip(emissions, self._needed, strict=True)):
            raise DataError(
                f"each of {len(texts)} texts is longer than the symbols that the encoder emits for its audio (the "
                f"first needs {self._needed[0]}, gets {emissions[0]}): nothing can be learnt; raise frame_rate or "
                "emissions_per_frame, or check that texts and audio belong together"
            )

    def batch(self, step: int) -> dict[str, Any]:
        """Return disturbed spectrograms, their lengths and targets."""
        generator = torch.Generator().manual_seed(self.config.loop.seed * 1_000_003 + step)
        chosen = self._utterances(step)
        mels = [self._mels[index].float() for index in chosen]
        mel, lengths = augment(mels, self.config.augment, self._pooling, self._floor, generator)
        targets = [self._targets[index] for index in chosen]
        return {
            "mel": mel,
            "lengths": lengths,
            "targets": torch.cat(targets),
            "target_lengths": torch.tensor([len(target) for target in targets]),
            "needed": torch.tensor([self._needed[index] for index in chosen]),
        }

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Return the CTC loss per character, and the share of utterances too short for their text."""
        output: CTCOutput = self.model(batch["mel"], batch["lengths"])
        emissions = output.lengths * self.config.emissions_per_frame
        loss = nn.functional.ctc_loss(
            output.log_probs.transpose(0, 1),
            batch["targets"],
            emissions,
            batch["target_lengths"],
            blank=BLANK,
            zero_infinity=True,
        )
        return loss, {"share_too_short": float((emissions < batch["needed"]).float().mean())}

    def _utterances(self, step: int) -> np.ndarray:
        """Return the utterances of batch `step`: each once per epoch, with others of about the same length."""
        size = self.config.batch_size
        per_epoch = -(-len(self._mels) // size)
        epoch, index = divmod(step, per_epoch)
        if self._plan[0] != epoch:
            generator = np.random.default_rng((self.config.loop.seed, epoch))
            lengths = np.array([mel.shape[1] for mel in self._mels]) * generator.uniform(0.9, 1.1, len(self._mels))
            order = np.argsort(lengths, kind="stable")
            batches = [order[start : start + size] for start in range(0, len(order), size)]
            self._plan = (epoch, [batches[i] for i in generator.permutation(len(batches))])
        return self._plan[1][index]


def augment(
    mels: list[Float[Tensor, "M _"]], config: AugmentConfig, pooling: int, floor: float, generator: torch.Generator
) -> tuple[Float[Tensor, "B M T"], Int[Tensor, " B"]]:
    """Warp, pad with silence (`floor`) and mask a batch of log-mel spectrograms.

    Their length becomes a multiple of LENGTH_MULTIPLE * `pooling`: kernels are made anew for every new size of a
    batch, which costs more than some silence.
    """
    B = len(mels)
    lengths = torch.tensor([mel.shape[1] for mel in mels])
    padded = torch.full((B, mels[0].shape[0], int(lengths.max()) + 1), floor)
    for row, mel in zip(padded, mels, strict=True):
        row[:, : mel.shape[1]] = mel
        # A stretched utterance is read up to one frame beyond its last: that must not be silence.
        row[:, mel.shape[1]] = mel[:, -1]
    tempo = _factors(B, config.tempo, generator)
    warp = _factors(B, config.frequency_warp, generator)
    stretched = (lengths * tempo).round().long().clamp_min(1)
    multiple = LENGTH_MULTIPLE * pooling
    T = -(-int(stretched.max()) // multiple) * multiple
    warped = _warp(padded, lengths / stretched, warp, T)
    times = torch.arange(T)[None] < stretched[:, None]
    bands = torch.full((B,), warped.shape[1])
    hidden_bands = _masks(bands, config.num_band_masks, config.band_mask, generator)
    hidden_times = _masks(stretched, config.num_time_masks, config.time_mask, generator)
    hidden_times = nn.functional.pad(hidden_times, (0, T - hidden_times.shape[1]))
    hidden = hidden_bands[:, :, None] | hidden_times[:, None, :]
    mean = (warped * times[:, None]).sum((1, 2)) / (stretched * warped.shape[1])
    warped = torch.where(hidden, mean[:, None, None], warped)
    return torch.where(times[:, None], warped, floor), stretched


def _factors(B: int, spread: float, generator: torch.Generator) -> Float[Tensor, " B"]:
    """Draw factors between 1 / (1 + spread) and 1 + spread, evenly on a logarithmic scale."""
    return (1 + spread) ** (2 * torch.rand(B, generator=generator) - 1)


def _warp(
    mel: Float[Tensor, "B M T"], time_step: Float[Tensor, " B"], band_step: Float[Tensor, " B"], length: int
) -> Float[Tensor, "B M T2"]:
    """Read each spectrogram at multiples of its time and band steps, between frames linearly."""
    B, M, T = mel.shape
    times = torch.arange(length)[None] * time_step[:, None]
    bands = torch.arange(M)[None] * band_step[:, None]
    # grid_sample wants coordinates from -1 (first) to 1 (last), the time axis first.
    grid = torch.stack(
        torch.broadcast_tensors(2 * times[:, None, :] / (T - 1) - 1, 2 * bands[:, :, None] / (M - 1) - 1), dim=-1
    )
    return nn.functional.grid_sample(mel[:, None], grid, padding_mode="border", align_corners=True)[:, 0]


def _masks(lengths: Int[Tensor, " B"], count: int, share: float, generator: torch.Generator) -> Bool[Tensor, "B T"]:
    """Return True inside `count` random stretches of at most `share` of each item's length, T the largest length."""
    B = len(lengths)
    positions = torch.arange(int(lengths.max()))[None]
    hidden = torch.zeros(B, positions.shape[1], dtype=torch.bool)
    for _ in range(count):
        widths = torch.rand(B, generator=generator) * share * lengths
        starts = torch.rand(B, generator=generator) * (lengths - widths)
        hidden |= (positions >= starts[:, None]) & (positions < (starts + widths)[:, None])
    return hidden
