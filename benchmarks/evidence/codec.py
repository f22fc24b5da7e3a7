"""What small codecs keep of held-out recordings: spectra, waveform, and words, by number of levels.

    python -m benchmarks.evidence.codec runs/spectral runs/adversarial --audio recordings --texts prompts.txt

Codecs are folders that `recipes/train_codec.py` wrote; what it held out of the same `--audio` is measured here. Behind
them stands residual k-means over mel patches (`mel-rvq`), fitted to the same training recordings, of about the same
bitrate. `--texts` has lines "name: what is said" for some of the files; words are judged by Moonshine, in English.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from recipes.train_codec import CodecRecipeConfig
from speechllm.audio import Audio
from speechllm.config import load_config
from speechllm.evaluation.judges import JudgeConfig, make_judges
from speechllm.metrics.text import CER
from speechllm.tokenizers.codec import Codec, load_codec
from speechllm.tokenizers.kmeans import KMeansConfig
from speechllm.tokenizers.mel import LogMelConfig
from speechllm.tokenizers.mel_rvq import MelRVQConfig, fit_mel_rvq
from speechllm.training.neural_codec import measure_codec
from speechllm.training.recordings import Recordings, load_recordings

MEL_RVQ = MelRVQConfig(
    num_codebooks=14, codebook_size=512, mel=LogMelConfig(num_mels=40), kmeans=KMeansConfig(passes=3)
)
"25 frames a second, 14 levels of 9 bits: 3.15 kbit/s."


def main(
    codecs: Annotated[list[Path], typer.Argument(help="Folders of trained codecs.")],
    audio: Annotated[list[str], typer.Option(help="Folder that they were trained on.")],
    texts: Annotated[Path, typer.Option(help='Lines "name: what is said".')],
) -> None:
    """Print the table."""
    config = load_config(CodecRecipeConfig, codecs[0] / "config.yaml")
    rate = config.train.codec.sample_rate
    recordings = load_recordings(corpora=[], folders=audio, sample_rate=rate)
    training, held_out = recordings.split(config.held_out_share, seed=config.train.loop.seed)
    waveforms = [held_out.samples(i) for i in range(len(held_out))]
    said = spoken_texts(held_out, read_texts(texts))
    fitted = fit_mel_rvq((training.samples(i) for i in range(0, len(training), 4)), MEL_RVQ, seed=0)
    typer.echo(f"{len(waveforms)} held-out recordings, {len(said)} of them with a text\n")
    typer.echo("| codec | levels | kbit/s | mel distance | SI-SNR, dB | effective codes | CER, % |")
    typer.echo("|---|---:|---:|---:|---:|---:|---:|")
    original = character_errors(said, {i: Audio(waveforms[i].numpy(), rate) for i in said})
    typer.echo(f"| the recordings themselves | | | 0 | | | {original} |")
    parts: list[tuple[str, Codec]] = [(folder.name, load_codec(folder)) for folder in codecs]
    for name, codec in [*parts, ("mel-rvq", fitted)]:
        for row in measure_codec(codec, waveforms):
            heard = character_errors(said, copies(codec, waveforms, said, row["levels"]))
            typer.echo(
                f"| {name} | {row['levels']} | {row['bitrate_kbps']:.2f} | {row['mel_distance']:.2f} | "
                f"{row['si_snr_db']:.1f} | {row['perplexity']:.0f} of {codec.codebook_size} | {heard} |"
            )


def read_texts(path: Path) -> dict[str, str]:
    """Return what is said by name."""
    lines = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
    return {name.strip(): text.strip() for name, _, text in lines}


def spoken_texts(recordings: Recordings, texts: dict[str, str]) -> dict[int, str]:
    """Return the texts of English recordings (in a folder `en`) by their index."""
    paths = {i: source for i, source in enumerate(recordings.sources) if isinstance(source, Path)}
    return {i: texts[path.stem] for i, path in paths.items() if path.parent.name == "en" and path.stem in texts}


def copies(codec: Codec, waveforms: list[Any], chosen: dict[int, str], levels: int) -> dict[int, Audio]:
    """Return the chosen recordings as the codec gives them back with its first levels."""
    with torch.no_grad():
        return {
            i: Audio(codec.decode(codec.encode(waveforms[i][None])[:, :levels])[0].numpy(), codec.sample_rate)
            for i in chosen
        }


def character_errors(texts: dict[int, str], audios: dict[int, Audio]) -> str:
    """Return the character error rate with its interval."""
    judge = make_judges(JudgeConfig(english="moonshine")).for_language("en")
    assert judge is not None
    heard = judge.transcribe([Audio(np.clip(audios[i].samples, -1, 1), audios[i].sample_rate) for i in texts], "en")
    score = CER.score(list(texts.values()), heard)
    low, high = score.interval or (float("nan"), float("nan"))
    return f"{score.value:.1f} [{low:.0f}, {high:.0f}]"


if __name__ == "__main__":
    typer.run(main)
