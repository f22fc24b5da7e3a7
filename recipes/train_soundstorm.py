"""Train SoundStorm on a prepared corpus: codes, the model, and held-out utterances spoken again.

    python -m recipes.train_soundstorm recipes/soundstorm_16khz/config.yaml corpus=runs/libritts out=runs/soundstorm
    speechllm train soundstorm recipes/soundstorm_16khz/config.yaml corpus=runs/libritts

What is finished is kept: the tokenizer, the codec, the model (which also resumes half-way). `out` then holds
semantic_tokenizer/, codec/ and acoustic/ (a folder for `speechllm resynthesize --model` and for the key `sound` of a
unified training) and samples/.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from recipes.acoustic_parts import CODES_FILE, CodecChoice, held_out_audio, tokenizer_and_codec, write_samples
from recipes.kept_config import remember_config
from recipes.train_semantic import SemanticTrainConfig
from speechllm.audio import Audio
from speechllm.config import load_config
from speechllm.generation.acoustic import AcousticDecoding, acoustic_codes
from speechllm.generation.cascade import decode_codes
from speechllm.generation.voice import encode_voice
from speechllm.hub import ACOUSTIC_FOLDER
from speechllm.models.soundstorm import SoundStorm
from speechllm.nn.pretrained import CONFIG_FILE
from speechllm.tokenizers.codec import Codec
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.training.soundstorm import SoundStormStageConfig, train_soundstorm


@dataclass(frozen=True, kw_only=True)
class SpokenAgainConfig:
    """What is made to listen to, from utterances of the test split."""

    count: int = 4
    "Utterances; 0: none."
    prompt_seconds: float = 3.0
    "Of the utterance itself, as a voice prompt; utterances that are shorter are passed over."


@dataclass(frozen=True, kw_only=True)
class SoundStormRecipeConfig:
    """The whole recipe."""

    corpus: str
    "Folder that `prepare` wrote."
    out: str = "runs/soundstorm"
    "Folder for everything that is made."
    semantic: SemanticTrainConfig
    "Semantic codes; its corpus and folder are filled in."
    codec: CodecChoice = field(default_factory=CodecChoice)
    "Acoustic codes."
    keep_codes: bool = False
    "Keep the corpus's codes in `out`/codes.safetensors, so that a run that goes on does not make them again."
    soundstorm: SoundStormStageConfig
    "Model, batches, loop."
    samples: SpokenAgainConfig = field(default_factory=SpokenAgainConfig)
    "What is made at the end."


def main(config_path: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train by a config file; returns the folder of the model."""
    config = load_config(SoundStormRecipeConfig, config_path, overrides)
    remember_config(config, config.out)
    return train(config)


def train(config: SoundStormRecipeConfig) -> Path:
    """Do every step that is not done yet and return the folder of the model."""
    out = Path(config.out)
    tokenizer, codec = tokenizer_and_codec(
        config.corpus, out, config.semantic, config.codec, seed=config.soundstorm.seed
    )
    if not (out / ACOUSTIC_FOLDER / CONFIG_FILE).exists():
        codes = out / CODES_FILE if config.keep_codes else None
        train_soundstorm(config.corpus, tokenizer, codec, config.soundstorm, out / ACOUSTIC_FOLDER, codes_file=codes)
    if config.samples.count and not (out / "samples").exists():
        spoken = make_samples(config, SoundStorm.from_pretrained(out / ACOUSTIC_FOLDER), tokenizer, codec)
        write_samples(out / "samples", spoken)
    return out / ACOUSTIC_FOLDER


def make_samples(
    config: SoundStormRecipeConfig, model: SoundStorm, tokenizer: SemanticTokenizer, codec: Codec
) -> dict[str, list[Audio]]:
    """Return held-out utterances as they are, in a voice that is drawn, and in their own."""
    audios = list(islice(held_out_audio(config.corpus, config.samples.prompt_seconds), config.samples.count))
    codes, seconds = tokenizer.encode(audios), config.samples.prompt_seconds
    voices = [encode_voice(audio, tokenizer, codec, model, seconds=seconds) for audio in audios]
    decoding, seed = AcousticDecoding(), config.soundstorm.seed
    return {
        "original": audios,
        "drawn": decode_codes(acoustic_codes(model, codes, [None] * len(codes), decoding, seed=seed), codec),
        "prompted": decode_codes(acoustic_codes(model, codes, voices, decoding, seed=seed), codec),
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
