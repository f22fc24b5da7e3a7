"""What a training reaches on a GPU: real tokens per second, MFU, peak memory; and tokenised audio per GPU hour.

    python -m benchmarks.training_gpu                      # on the GPU that there is
    python -m benchmarks.training_gpu --quick --device cpu # tiny sizes, to see that it runs

Full fine-tuning with random weights of the sizes of SmolLM2-135M and of Llama-3.2-1B, extended by 1024 codes; packed
rows of examples as long as speech tasks make them; bfloat16 autocast. MFU counts real tokens, targets and pairs only
(speechllm/training/throughput.py), against the data sheet's peak: what is padding, computed twice or computed for
nothing is not in it. The estimate of memory that the checks print stands beside what was taken.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperModel

from benchmarks.machine import RESULTS
from benchmarks.measure import Spread, table, write_text
from benchmarks.training import CORPORA, Lengths, make_examples
from speechllm.audio import Audio
from speechllm.data.collate import Collator
from speechllm.data.packing import PackedRows
from speechllm.errors import SpeechLLMError
from speechllm.models.causal_lm import BaseModelConfig, extend_causal_lm, random_llama
from speechllm.models.text_lm import train_bpe
from speechllm.processor import UnifiedProcessor
from speechllm.training.memory import GIB, estimate_memory
from speechllm.training.optim import OptimizerConfig
from speechllm.training.throughput import model_work, peak_flops
from speechllm.training.trainer import TrainingConfig, UnifiedTrainer
from speechllm.vocabulary import Vocabulary

NUM_CODES = 1024
WARMUP = 3
"Steps that are not timed: kernels are chosen and memory is taken in them."


@dataclass(frozen=True, kw_only=True)
class Size:
    """A Llama and how many rows of how many tokens it trains on at once."""

    name: str
    model: BaseModelConfig
    num_text_ids: int
    max_tokens: int
    rows: int


SIZES = (
    Size(
        name="SmolLM2-135M",
        model=BaseModelConfig(
            hidden_size=576, num_layers=30, num_heads=9, num_key_value_heads=3, intermediate_size=1536
        ),
        num_text_ids=49_152,
        max_tokens=2048,
        rows=16,
    ),
    Size(
        name="1B (Llama-3.2)",
        model=BaseModelConfig(
            hidden_size=2048, num_layers=16, num_heads=32, num_key_value_heads=8, intermediate_size=8192
        ),
        num_text_ids=128_256,
        max_tokens=2048,
        rows=8,
    ),
)
TINY = (
    Size(
        name="tiny",
        model=BaseModelConfig(hidden_size=32, num_layers=1, num_heads=2),
        num_text_ids=600,
        max_tokens=256,
        rows=2,
    ),
)


class StepTimes(TrainerCallback):
    """Wall time at the end of each step, with nothing left in the GPU's queue."""

    def __init__(self, device: torch.device):
        self.device = device
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ends.append(time.perf_counter())


def count_batches(trainer: UnifiedTrainer) -> list[dict[str, float]]:
    """Return a list that will get what each batch holds. (Its collator may work in another process.)"""
    batches: list[dict[str, float]] = []
    compute_loss = trainer.compute_loss

    def counted(model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        tokens, pairs = inputs["row_work"].sum(dim=0).tolist()
        targets = float((inputs["labels"] != -100).sum())
        batches.append({"tokens": float(tokens), "pairs": float(pairs), "targets": targets})
        return compute_loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = counted
    return batches


@dataclass(frozen=True)
class Found:
    """One size with one optimizer."""

    tokens_per_second: Spread
    mfu: Spread | None
    peak_gib: float | None
    estimate_gib: float
    filled: float


def build(size: Size, attention: str) -> tuple[PreTrainedModel, UnifiedProcessor]:
    """Return the random model, extended, with a processor for it."""
    tokenizer = train_bpe(["turn on the lamp", "allume la lampe"] * 50, vocab_size=300)
    config = replace(size.model, attn_implementation=attention)
    model: PreTrainedModel = random_llama(config, size.num_text_ids, tokenizer)
    vocabulary = Vocabulary.for_speech(size.num_text_ids, NUM_CODES)
    return extend_causal_lm(model, vocabulary, init="normal"), UnifiedProcessor(tokenizer, vocabulary)


def train(size: Size, training: TrainingConfig, optimizer: OptimizerConfig, attention: str, lengths: Lengths) -> Found:
    """Train some steps and return what was reached."""
    model, processor = build(size, attention)
    examples = make_examples(processor, lengths, 2000)
    rows = PackedRows(lambda index: examples[index % len(examples)], size.max_tokens)
    collator = Collator(pad_id=0, row_tokens=size.max_tokens)
    with tempfile.TemporaryDirectory() as folder:
        trainer = UnifiedTrainer(model, rows, collator, processor.vocabulary, training, optimizer, Path(folder))
        batches = count_batches(trainer)
        device = trainer.args.device
        times = StepTimes(device)
        trainer.add_callback(times)
        trainer.remove_callback(PrinterCallback)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        trainer.train()
    work, peak = model_work(model), peak_flops(device, training.peak_tflops)
    seconds = np.diff(times.ends)[WARMUP - 1 :]
    counted = batches[WARMUP : training.max_steps]
    rates = [batch["tokens"] / second for batch, second in zip(counted, seconds, strict=True)]
    mfus = [work.flops(**b) / second / (peak or 1.0) for b, second in zip(counted, seconds, strict=True)]
    share = sum(b["targets"] for b in counted) / sum(b["tokens"] for b in counted)
    estimate = estimate_memory(
        model, optimizer, max_tokens=size.max_tokens, rows=size.rows, bf16=training.bf16,
        checkpointing=training.gradient_checkpointing, target_share=share,
    )  # fmt: skip
    return Found(
        tokens_per_second=Spread.of(rates),
        mfu=Spread.of([100 * value for value in mfus]) if peak else None,
        peak_gib=torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None,
        estimate_gib=estimate.total / GIB,
        filled=100 * statistics.mean(b["tokens"] for b in counted) / (size.rows * size.max_tokens),
    )


def tokenise(device: torch.device, *, quick: bool, rounds: int = 3) -> Spread:
    """Return hours of audio per hour, through an encoder of Whisper-base's size and 1024 centroids."""
    from speechllm.tokenizers.pretrained_features import TransformersFeatures, TransformersFeaturesConfig
    from speechllm.tokenizers.semantic import SemanticTokenizerConfig, fit_semantic_tokenizer

    sizes = (16, 1, 2) if quick else (512, 6, 8)
    config = WhisperConfig(
        d_model=sizes[0], encoder_layers=sizes[1], encoder_attention_heads=sizes[2], encoder_ffn_dim=4 * sizes[0],
        decoder_layers=1, decoder_attention_heads=sizes[2], decoder_ffn_dim=sizes[0], num_mel_bins=80,
    )  # fmt: skip
    encoder = WhisperModel(config).get_encoder()
    features = TransformersFeatures(
        encoder, WhisperFeatureExtractor(feature_size=80), TransformersFeaturesConfig(source="random", frame_rate=12.5)
    )
    generator = np.random.default_rng(0)
    audios = [
        Audio(generator.uniform(-0.1, 0.1, 16_000 * 30).astype(np.float32), 16_000) for _ in range(1 if quick else 4)
    ]
    fitted = fit_semantic_tokenizer(
        features, audios, SemanticTokenizerConfig(codebook_size=16 if quick else NUM_CODES), seed=0
    )
    tokenizer = fitted.to(device)
    tokenizer.encode(audios[:1])
    measured = []
    for _ in range(rounds):
        began = time.perf_counter()
        tokenizer.encode(audios)  # codes come to the CPU, so the GPU is done
        measured.append(30.0 * len(audios) / (time.perf_counter() - began))
    return Spread.of(measured)


HEADER = ["model", "optimizer", "options", "real tokens/s", "filled", "MFU", "peak memory", "estimated"]
FULL = TrainingConfig(max_steps=1, bf16=True, log_every=1000, show_progress=False, report_to=[], prefetch=4)


def table_rows(
    sizes: Sequence[Size], kinds: Sequence[str], attention: str, training: TrainingConfig
) -> list[list[str]]:
    """Return a line for each size, optimizer and with or without gradient checkpointing."""
    rows = []
    for size in sizes:
        for kind in kinds:
            for checkpointing in (False, True):
                options = replace(
                    training, max_tokens=size.max_tokens, rows_per_batch=size.rows, gradient_checkpointing=checkpointing
                )
                optimizer = OptimizerConfig(kind=kind, learning_rate=1e-4)  # pyright: ignore[reportArgumentType]
                said = f"{attention}, {size.rows} x {size.max_tokens}{', checkpointing' if checkpointing else ''}"
                try:
                    found = train(size, options, optimizer, attention, CORPORA[1])
                except SpeechLLMError as error:
                    rows.append([size.name, kind, said, "-", "-", "-", "-", str(error)])
                    continue
                mfu = f"{found.mfu.show(1)} %" if found.mfu else "no peak known"
                peak = f"{found.peak_gib:.1f} GiB" if found.peak_gib is not None else "not on a CPU"
                rows.append(
                    [size.name, kind, said, found.tokens_per_second.show(0), f"{found.filled:.1f} %", mfu, peak,
                     f"{found.estimate_gib:.2f} GiB"]
                )  # fmt: skip
    return rows


def main(
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = RESULTS / "training_gpu.md",
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    num_steps: Annotated[int, typer.Option(help="Steps of a run; the first three are not counted.")] = 20,
    attention: Annotated[str, typer.Option(help="sdpa, flex_attention, flash_attention_2 (rows of one).")] = "sdpa",
    liger: Annotated[bool, typer.Option(help="Liger's kernels.")] = False,
    quick: Annotated[bool, typer.Option(help="Tiny sizes, to see that it runs.")] = False,
) -> None:
    """Measure training and tokenising on a GPU and write the table."""
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("there is no GPU here; --device cpu --quick only shows that the program runs")
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    training = replace(FULL, max_steps=num_steps, cpu=device == "cpu", liger=liger)
    sizes = TINY if quick else SIZES
    if attention.startswith("flash"):
        sizes = [replace(size, rows=1, max_tokens=size.max_tokens * size.rows) for size in sizes]
    rows = table_rows(sizes, ("adamw", "muon"), attention, training)
    spread = tokenise(torch.device(device), quick=quick)
    text = f"""# Training on a GPU

{name}, torch {torch.__version__}; random weights, full fine-tuning, bfloat16 autocast, packed rows of mixed lengths
({CORPORA[1].name}); median (min to max) over steps {WARMUP + 1} to {num_steps}.
MFU: share of the data sheet's dense bfloat16 peak, counting real tokens, targets and pairs of tokens of one example
only (arXiv:2204.02311, appendix B).

{table(HEADER, rows)}

Tokenising through an encoder of Whisper-base's size (random weights, 30 s a piece, one by one):
{spread.show(0)} hours of audio per hour of {name}.
"""
    typer.echo(write_text(out, text))


if __name__ == "__main__":
    typer.run(main)
