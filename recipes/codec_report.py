"""What a trained codec does, as a folder to look through and listen to.

write_codec_report(codec, held_out, facts, history, "runs/codec/report")

report.md       facts, a table over the levels, pictures, links to the sounds
report.json     all figures
losses.svg levels.svg
samples/        some recordings and what 1, 2, 4, ... levels make of them: flac, and spectrograms
"""

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from speechllm.audio import Audio, save_audio
from speechllm.errors import MissingDependencyError
from speechllm.evaluation.plots import curve, spectrogram
from speechllm.evaluation.resynthesis import mel_distance
from speechllm.tokenizers.codec import Codec
from speechllm.training.neural_codec import measure_codec

JSON_FILE, TEXT_FILE = "report.json", "report.md"
LOSSES = ("waveform", "mel", "adversarial", "features", "commitment", "discriminator")
COLUMNS = {
    "levels": "levels",
    "bitrate_kbps": "kbit/s",
    "mel_distance": "mel distance, lower is better",
    "log_mel_db": "log-mel distance in dB, lower",
    "si_snr_db": "SI-SNR in dB, higher",
    "perplexity": "effective codes of the last level",
    "used_share": "share of its codes that occur",
}


def write_codec_report(
    codec: Codec,
    held_out: Sequence[Float[Tensor, " _"]],
    facts: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    folder: str | Path,
    *,
    num_samples: int = 3,
) -> dict[str, Any]:
    """Measure a codec on waveforms that it has not heard, write the folder, return the content of report.json.

    Args:
        codec: on the CPU.
        held_out: waveforms at the codec's rate, one or more.
        facts: what else report.json says.
        history: rows of history.jsonl.
        folder: is made if need be; files of an earlier report are replaced.
        num_samples: how many of the recordings can be listened to.

    Raises:
        MissingDependencyError: matplotlib is not there.
    """
    folder = Path(folder)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    rows = measure_codec(codec, list(held_out))
    originals = [Audio(waveform.numpy(), codec.sample_rate) for waveform in held_out]
    for row in rows:
        copies = [copy_at(codec, audio, row["levels"]) for audio in originals]
        row["log_mel_db"] = mel_distance(originals, copies).value
    levels = [row["levels"] for row in rows]
    samples = [_write_sample(codec, audio, levels, folder, i) for i, audio in enumerate(originals[:num_samples])]
    losses = curve("losses", [_named_losses(row) for row in history])
    if losses is not None:
        _write(folder / "losses.svg", base64.b64decode(losses.partition(",")[2]))
    _write(folder / "levels.svg", _level_plot(rows))
    content = {**facts, "levels": rows}
    _write(folder / TEXT_FILE, _text(content, samples, losses is not None).encode())
    _write(folder / JSON_FILE, (json.dumps(content, indent=2) + "\n").encode())
    return content


def copy_at(codec: Codec, audio: Audio, levels: int) -> Audio:
    """Return what the first levels of a recording's codes sound like."""
    codes = codec.encode(torch.from_numpy(audio.samples)[None])
    return Audio(codec.decode(codes[:, :levels])[0, : audio.num_samples].numpy(), codec.sample_rate)


def _write_sample(codec: Codec, audio: Audio, levels: Sequence[int], folder: Path, number: int) -> dict[str, str]:
    """Write a recording and its copies; return the path of each sound, without ending, by its name."""
    versions = {"original": audio} | {_name(k): copy_at(codec, audio, k) for k in levels}
    paths = {}
    for name, version in versions.items():
        paths[name] = f"samples/{number}-{name.replace(' ', '_')}"
        save_audio(version, folder / f"{paths[name]}.flac")
        _write(folder / f"{paths[name]}.png", base64.b64decode(spectrogram(version).partition(",")[2]))
    return paths


def _name(levels: int) -> str:
    return f"{levels} level{'s' if levels > 1 else ''}"


def _named_losses(row: Mapping[str, float]) -> dict[str, float]:
    return {"step": row["step"], **{f"{name} loss": row[name] for name in LOSSES if row.get(name)}}


def _level_plot(rows: Sequence[Mapping[str, float]]) -> bytes:
    """Return mel distance and SI-SNR over the bitrate (SVG)."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "eval", "drawing the report") from error
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("mel_distance", "si_snr_db"), strict=True):
        axes.plot([row["bitrate_kbps"] for row in rows], [row[name] for row in rows], marker="o", color="#2563eb")
        axes.set_xlabel("kbit/s", fontsize=8)
        axes.set_title(COLUMNS[name], fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _text(content: Mapping[str, Any], samples: Sequence[Mapping[str, str]], has_losses: bool) -> str:
    """Return the page."""
    facts = [[name.replace("_", " "), str(value)] for name, value in content.items() if name != "levels"]
    rows = [[_number(row[name]) for name in COLUMNS] for row in content["levels"]]
    parts = ["# A trained codec", _table(["", ""], facts), "## Held-out recordings, by number of levels"]
    parts += [_table(list(COLUMNS.values()), rows), "![distances over the bitrate](levels.svg)"]
    if has_losses:
        parts += ["## Training", "![losses over the steps](losses.svg)"]
    if samples:
        names = list(samples[0])
        cells = [[f"[![{name}]({paths[name]}.png)]({paths[name]}.flac)" for name in names] for paths in samples]
        parts += ["## Samples", "A picture links to its sound.", _table(names, cells)]
    return "\n\n".join(parts) + "\n"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
