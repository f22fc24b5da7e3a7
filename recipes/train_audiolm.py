"""Train AudioLM on a prepared corpus: codes, three token LMs, and some continuations to listen to.

    speechllm prepare pico runs/audiolm_small/corpus num_sentences=600
    python -m recipes.train_audiolm recipes/audiolm_small/config.yaml

What is finished is kept: the tokenizer, the codec, each stage (which also resumes half-way). `out` then holds
semantic/, codec/, audiolm/ (a folder for `AudioLM.from_pretrained`) and samples/.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from recipes.kept_config import remember_config
from recipes.train_semantic import SemanticTrainConfig, train_semantic
from speechllm.audio import Audio, load_audio, save_audio
from speechllm.config import load_config
from speechllm.data.prepare import read_corpus
from speechllm.generation.audiolm import continue_speech, generate_acoustic, generate_unconditional
from speechllm.generation.cascade import decode_codes
from speechllm.generation.voice import encode_voice
from speechllm.models.audiolm import AudioLM
from speechllm.nn.pretrained import CONFIG_FILE
from speechllm.safety import embed_watermark
from speechllm.tokenizers.codec import Codec, load_codec
from speechllm.tokenizers.mel_rvq import MelRVQConfig
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.training.audiolm import AudioLMTrainConfig, train_audiolm
from speechllm.training.codec import train_codec


@dataclass(frozen=True, kw_only=True)
class SamplesConfig:
    """What is made to listen to, from utterances of the test split."""

    count: int = 4
    "Utterances; 0: none."
    prompt_seconds: float = 3.0
    "Start of an utterance that is continued; utterances that are shorter are passed over."
    seconds: float = 7.0
    "Length of what is added, at most."


@dataclass(frozen=True, kw_only=True)
class AudioLMRecipeConfig:
    """The whole recipe."""

    corpus: str
    "Folder that `prepare` wrote."
    out: str = "runs/audiolm"
    "Folder for everything that is made."
    semantic: SemanticTrainConfig
    "Semantic codes; its corpus and folder are filled in."
    codec: MelRVQConfig = field(default_factory=MelRVQConfig)
    "Acoustic codes."
    audiolm: AudioLMTrainConfig
    "The stages."
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    "What is made at the end."


def main(config_path: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train by a config file; returns the folder of the model."""
    config = load_config(AudioLMRecipeConfig, config_path, overrides)
    remember_config(config, config.out)
    return train(config)


def train(config: AudioLMRecipeConfig) -> Path:
    """Do every step that is not done yet and return the folder of the model."""
    out = Path(config.out)
    folder = train_semantic(replace(config.semantic, corpora=[config.corpus], out=str(out / "semantic")))
    tokenizer = SemanticTokenizer.from_pretrained(folder)
    if not (out / "codec" / CONFIG_FILE).exists():
        train_codec(config.corpus, config.codec, out / "codec", seed=config.audiolm.seed)
    codec = load_codec(out / "codec")
    if not (out / "audiolm" / CONFIG_FILE).exists():
        train_audiolm(config.corpus, tokenizer, codec, config.audiolm, out / "audiolm")
    if config.samples.count and not (out / "samples").exists():
        write_samples(config, AudioLM.from_pretrained(out / "audiolm"), tokenizer, codec)
    return out / "audiolm"


def write_samples(config: AudioLMRecipeConfig, model: AudioLM, tokenizer: SemanticTokenizer, codec: Codec) -> None:
    """Write the three uses of AudioLM as WAV files, all of them watermarked."""
    samples, folder, seed = config.samples, Path(config.out) / "samples", config.audiolm.seed
    audios = list(islice(_held_out(config.corpus, samples.prompt_seconds), samples.count))
    codes = tokenizer.encode(audios)
    spoken = {"acoustic": generate_acoustic(model, codes, seed=seed)}
    if model.semantic is not None:
        prompts = [encode_voice(audio, tokenizer, codec, model, seconds=samples.prompt_seconds) for audio in audios]
        spoken["continuation"] = continue_speech(model, prompts, seconds=samples.seconds, seed=seed)
        spoken["unconditional"] = generate_unconditional(model, count=samples.count, seconds=samples.seconds, seed=seed)
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for kind, pieces in spoken.items():
        for number, audio in enumerate(decode_codes([piece.acoustic_codes for piece in pieces], codec)):
            save_audio(embed_watermark(audio), partial / f"{kind}-{number}.wav")
    partial.replace(folder)


def _held_out(corpus: str, least_seconds: float) -> Iterator[Audio]:
    for record in read_corpus(corpus, "test"):
        if record.audio is not None and (audio := load_audio(record.audio)).duration_seconds >= least_seconds:
            yield audio


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
