"""Train AudioLM on a prepared corpus: codes, three token LMs, and some continuations to listen to.

    speechllm prepare pico runs/audiolm_small/corpus num_sentences=600
    python -m recipes.train_audiolm recipes/audiolm_small/config.yaml

What is finished is kept: the tokenizer, the codec, each stage (which also resumes half-way). `out` then holds
semantic_tokenizer/, codec/, acoustic/ (a folder for `AudioLM.from_pretrained`) and samples/.
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
from speechllm.generation.audiolm import continue_speech, generate_acoustic, generate_unconditional
from speechllm.generation.cascade import decode_codes
from speechllm.generation.voice import encode_start
from speechllm.hub import ACOUSTIC_FOLDER
from speechllm.models.audiolm import AudioLM
from speechllm.nn.pretrained import CONFIG_FILE
from speechllm.tokenizers.codec import Codec
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.training.audiolm import AudioLMTrainConfig, train_audiolm


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
    codec: CodecChoice = field(default_factory=CodecChoice)
    "Acoustic codes."
    keep_codes: bool = False
    """Keep the corpus's codes in `out`/codes.safetensors, so that a run that goes on does not make them again: 0.6 GB
    for 100 hours at 50 Hz and 12 levels."""
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
    tokenizer, codec = tokenizer_and_codec(config.corpus, out, config.semantic, config.codec, seed=config.audiolm.seed)
    if not (out / ACOUSTIC_FOLDER / CONFIG_FILE).exists():
        codes = out / CODES_FILE if config.keep_codes else None
        train_audiolm(config.corpus, tokenizer, codec, config.audiolm, out / ACOUSTIC_FOLDER, codes_file=codes)
    if config.samples.count and not (out / "samples").exists():
        spoken = make_samples(config, AudioLM.from_pretrained(out / ACOUSTIC_FOLDER), tokenizer, codec)
        write_samples(out / "samples", spoken)
    return out / ACOUSTIC_FOLDER


def make_samples(
    config: AudioLMRecipeConfig, model: AudioLM, tokenizer: SemanticTokenizer, codec: Codec
) -> dict[str, list[Audio]]:
    """Return the three uses of AudioLM, on held-out utterances."""
    samples, seed = config.samples, config.audiolm.seed
    audios = list(islice(held_out_audio(config.corpus, samples.prompt_seconds), samples.count))
    spoken = {"acoustic": generate_acoustic(model, tokenizer.encode(audios), seed=seed)}
    if model.semantic is not None:
        prompts = [encode_start(audio, tokenizer, codec, model, seconds=samples.prompt_seconds) for audio in audios]
        spoken["continuation"] = continue_speech(model, prompts, seconds=samples.seconds, seed=seed)
        spoken["unconditional"] = generate_unconditional(model, count=samples.count, seconds=samples.seconds, seed=seed)
    return {kind: decode_codes([piece.acoustic_codes for piece in pieces], codec) for kind, pieces in spoken.items()}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
