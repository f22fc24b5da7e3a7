"""What a corpus of so many hours will take: shards, storage, GPU hours, money; plain arithmetic on stated assumptions.

    plan = plan_corpus(PlanConfig(hours=57_100, model_parameters=8.2e9, num_gpus=64))
    plan["tokenise, GPU hours"], plan["dollars for an hour of speech"]

    speechllm plan hours=57100 num_gpus=64              # the same as a table, with the source of every number
    speechllm plan --vary hours=900,13500,57100

A plan is as good as its inputs: each of them says where it comes from, or that it is an assumption. Two of them decide
nearly all, how much of a GPU the speech encoder and the training keep busy: measure both on an hour of speech and give
them. The operations of a training step are 6 for each parameter and token (arXiv:2001.08361, section 2.1), 8 where
activations are computed twice; those of attention scores come on top and are left out: a few percent in rows of 2048.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from speechllm.config import build_config, config_to_dict
from speechllm.errors import ConfigError

SECONDS = 3600.0
MB, GB, TB = 1e6, 1e9, 1e12


def _assume(default: Any, meaning: str, source: str) -> Any:
    """Return a field that says what it is and where its default comes from."""
    return field(default=default, metadata={"meaning": meaning, "source": source})


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """The inputs of a plan. `describe_inputs` prints what each is and where its default comes from."""

    hours: float = _assume(57_100.0, "speech, hours", "AudioPaLM's largest mixture (arXiv:2306.12925, section 5)")
    utterance_seconds: float = _assume(
        7.0, "mean length of an utterance", "assumption: clips of Common Voice last 5 s, of LibriSpeech 12 s"
    )
    source_kbps: float = _assume(64.0, "rate of the downloads, kbit/s", "assumption: MP3 of speech")
    flac_bytes_per_second: float = _assume(
        17_100.0, "prepared speech, bytes a second", "LibriSpeech: 59.3 GB of FLAC for 960.9 h (openslr.org/12)"
    )
    records_per_shard: int = _assume(1024, "--records-per-shard of tokenize", "assumption: an hour or two in one file")
    frame_rate: float = _assume(25.0, "codes a second", "arXiv:2306.12925, section 3.1")
    bytes_per_code: float = _assume(
        2.2, "token shards, bytes for each code", "measured: random codes of 1024 with random text, 7 s each"
    )
    bytes_per_unpacked_row: float = _assume(
        910.0, "a row unpacked for training, on disk, bytes", "measured: 175 codes with 107 letters (data/row_store.py)"
    )
    bytes_per_row_in_memory: float = _assume(
        0.75, "a row in a training process, bytes", "assumption: three components, 2 bits each (data/row_order.py)"
    )
    codes_per_text_token: float = _assume(
        7.0, "codes for each text token", "arXiv:2306.12925: a text token lasts as long as 6 to 8 codes"
    )
    texts_per_use: float = _assume(1.5, "texts in a training example", "assumption: ASR and AST have one, chains two")
    uses: float = _assume(3.0, "times that each hour is read", "assumption: ASR, AST and the chain, one epoch each")
    encoder_parameters: float = _assume(
        307e6, "speech encoder, parameters", "Whisper medium: 24 layers, 1024 wide (arXiv:2212.04356, table 1)"
    )
    encoder_rate: float = _assume(50.0, "its frames a second", "arXiv:2212.04356, section 2.2")
    encoder_utilisation: float = _assume(
        0.03, "share of the peak that it reaches", "assumption: 7 ms for 7 s, as utterances go one by one; measure it"
    )
    model_parameters: float = _assume(8.2e9, "LM, parameters", "Qwen3-8B: AudioPaLM's is 8B")
    recompute: bool = _assume(True, "gradient checkpointing", "assumption: as in recipes/llm_8b")
    mfu: float = _assume(0.4, "share of the peak that training reaches", "assumption; measure it")
    num_gpus: int = _assume(64, "GPUs", "assumption")
    peak_tflops: float = _assume(989.0, "a GPU's dense bfloat16 peak, TFLOP/s", "data sheet of H100 and H200 SXM")
    dollars_per_gpu_hour: float = _assume(3.0, "price of a GPU hour", "assumption: cloud prices vary between 2 and 5")
    dollars_per_tb_month: float = _assume(23.0, "price of storage", "assumption: object storage")
    months: float = _assume(3.0, "how long the data is kept", "assumption")

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, bool) and not value > 0:
                raise ConfigError(f"{one.name} = {value}, expected a number above 0")
        for name in ("encoder_utilisation", "mfu"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, expected a share of at most 1")


def plan_corpus(config: PlanConfig) -> dict[str, float]:
    """Return the plan: what -> how much."""
    seconds = config.hours * SECONDS
    utterances = seconds / config.utterance_seconds
    codes = seconds * config.frame_rate
    flac = seconds * config.flac_bytes_per_second
    storage = (flac + codes * config.bytes_per_code) / TB
    encode = 2 * config.encoder_parameters * config.encoder_rate * seconds
    tokenise = encode / (config.peak_tflops * 1e12 * config.encoder_utilisation) / SECONDS
    tokens = codes * (1 + config.texts_per_use / config.codes_per_text_token) * config.uses
    train = training_gpu_hours(config, tokens)
    gpu_dollars = (tokenise + train) * config.dollars_per_gpu_hour
    storage_dollars = storage * config.dollars_per_tb_month * config.months
    return {
        "utterances, millions": utterances / 1e6,
        "shards of tokens": -(-utterances // config.records_per_shard),
        "downloads, TB": seconds * config.source_kbps * 1000 / 8 / TB,
        "prepared speech, TB": flac / TB,
        "codes, billions": codes / 1e9,
        "token shards, GB": codes * config.bytes_per_code / GB,
        "rows unpacked on each training machine, GB": utterances * config.bytes_per_unpacked_row / GB,
        "rows in memory of each training process, MB": utterances * config.bytes_per_row_in_memory / MB,
        "tokenise, hours of speech in a GPU hour": config.hours / tokenise,
        "tokenise, GPU hours": tokenise,
        "tokens trained on, billions": tokens / 1e9,
        "train, tokens a second and GPU": tokens / train / SECONDS,
        "train, GPU hours": train,
        "days on all GPUs": (tokenise + train) / config.num_gpus / 24,
        "GPUs, dollars": gpu_dollars,
        "storage, dollars": storage_dollars,
        "dollars for an hour of speech": (gpu_dollars + storage_dollars) / config.hours,
    }


def training_gpu_hours(config: PlanConfig, tokens: float) -> float:
    """Return the GPU hours for so many tokens."""
    operations = (8 if config.recompute else 6) * config.model_parameters * tokens
    return operations / (config.peak_tflops * 1e12 * config.mfu) / SECONDS


def varied(config: PlanConfig, name: str, values: Sequence[float]) -> list[PlanConfig]:
    """Return the config once for each value of one of its keys.

    Raises:
        ConfigError: there is no such key, or a value does not fit.
    """
    return [build_config(PlanConfig, config_to_dict(config) | {name: value}, where="plan") for value in values]


def plan_table(config: PlanConfig, name: str | None = None, values: Sequence[float] = ()) -> str:
    """Return the plan in Markdown, with one column for each value of the key `name`."""
    configs = [config] if name is None else varied(config, name, values)
    head = ["value"] if name is None else [f"{name} = {number(value)}" for value in values]
    plans = [plan_corpus(one) for one in configs]
    rows = [[what, *(number(plan[what]) for plan in plans)] for what in plans[0]]
    return markdown(["", *head], rows)


def describe_inputs(config: PlanConfig) -> str:
    """Return every input in Markdown: key, value, meaning, and the source of its default (or that it was given)."""
    default = PlanConfig()
    rows = []
    for one in fields(config):
        value = getattr(config, one.name)
        source = one.metadata["source"] if value == getattr(default, one.name) else "given"
        rows.append([f"`{one.name}`", number(value), one.metadata["meaning"], source])
    return markdown(["key", "value", "what", "from"], rows)


def number(value: bool | int | float) -> str:
    """Return a number with three digits or, from a thousand, in whole ones with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value >= 1e7:
        return f"{value:.3g}".replace("e+0", "e").replace("e+", "e")
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; columns of numbers stand right."""
    right = [all(row[i][:1].isdigit() for row in rows) for i in range(len(header))]
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join('---:' if flag else '---' for flag in right)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
