"""What recipes of acoustic stages share: a semantic tokenizer, a codec, held-out speech, samples to listen to.

    tokenizer, codec = tokenizer_and_codec(config.corpus, out, config.semantic, config.codec, seed=0)
    write_samples(out / "samples", {"acoustic": audios})

A codec is fitted to the corpus (residual k-means, seconds), taken from a folder (one that `train_codec` wrote, say), or
from the Hub (EnCodec, DAC, Mimi, X-Codec). Whichever it is, `out`/codec holds it afterwards.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from recipes.train_semantic import SemanticTrainConfig, train_semantic
from speechllm.audio import Audio, load_audio, save_audio
from speechllm.data.prepare import read_corpus
from speechllm.errors import ConfigError
from speechllm.hub import CODEC_FOLDER
from speechllm.nn.pretrained import CONFIG_FILE
from speechllm.processor import SEMANTIC_FOLDER
from speechllm.safety import embed_watermark
from speechllm.tokenizers.codec import Codec, load_codec
from speechllm.tokenizers.mel_rvq import MelRVQConfig
from speechllm.tokenizers.pretrained_codec import PretrainedCodec
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.training.codec import train_codec

CODES_FILE = "codes.safetensors"


@dataclass(frozen=True, kw_only=True)
class HubCodec:
    """A codec of transformers."""

    source: str
    "Hub id or folder: descript/dac_16khz, facebook/encodec_24khz, kyutai/mimi, ..."
    num_codebooks: int | None = None
    "Levels in use, from the coarsest on; None: all."
    revision: str = "main"
    "Branch, tag or commit on the Hub."


@dataclass(frozen=True, kw_only=True)
class CodecChoice:
    """Where the acoustic codes come from."""

    kind: Literal["mel-rvq", "folder", "hub"] = "mel-rvq"
    "Fitted here, saved before, or pretrained; the section of that name says more."
    mel_rvq: MelRVQConfig = field(default_factory=MelRVQConfig)
    "For kind mel-rvq."
    folder: str | None = None
    "For kind folder: what `recipes/train_codec.py` or `save_pretrained` wrote."
    hub: HubCodec | None = None
    "For kind hub."

    def __post_init__(self) -> None:
        for kind in ("folder", "hub"):
            if (self.kind == kind) != (getattr(self, kind) is not None):
                raise ConfigError(f"codec.kind = {self.kind!r} with codec.{kind} = {getattr(self, kind)!r}; set both")


def tokenizer_and_codec(
    corpus: str, out: Path, semantic: SemanticTrainConfig, choice: CodecChoice, *, seed: int
) -> tuple[SemanticTokenizer, Codec]:
    """Make, or find made, `out`/semantic_tokenizer and `out`/codec; both run where `semantic.device` says."""
    folder = train_semantic(replace(semantic, corpora=[corpus], out=str(out / SEMANTIC_FOLDER)))
    tokenizer = SemanticTokenizer.from_pretrained(folder)
    if not (out / CODEC_FOLDER / CONFIG_FILE).exists():
        make_codec(corpus, choice, out / CODEC_FOLDER, seed=seed)
    codec = load_codec(out / CODEC_FOLDER)
    if semantic.device is not None:
        tokenizer.to(semantic.device)
        codec.to(semantic.device)
    return tokenizer, codec


def make_codec(corpus: str, choice: CodecChoice, out: Path, *, seed: int) -> None:
    """Write the codec that the config asks for into `out`."""
    if choice.hub is not None:
        hub = choice.hub
        codec = PretrainedCodec.from_hub(hub.source, num_codebooks=hub.num_codebooks, revision=hub.revision)
        codec.save_pretrained(out)
    elif choice.folder is not None:
        load_codec(choice.folder).save_pretrained(out)
    else:
        train_codec(corpus, choice.mel_rvq, out, seed=seed)


def held_out_audio(corpus: str, least_seconds: float) -> Iterator[Audio]:
    """Yield the utterances of the test split that last long enough."""
    for record in read_corpus(corpus, "test"):
        if record.audio is not None and (audio := load_audio(record.audio)).duration_seconds >= least_seconds:
            yield audio


def write_samples(folder: Path, spoken: Mapping[str, Sequence[Audio]]) -> None:
    """Write <kind>-<number>.wav, all of them watermarked; the folder is there when all of it is."""
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for kind, audios in spoken.items():
        for number, audio in enumerate(audios):
            save_audio(embed_watermark(audio), partial / f"{kind}-{number}.wav")
    partial.replace(folder)
