"""A whole speechllm checkpoint at the smallest size: random tiny LM, tiny BPE, real parts throughout.

processor = tiny_processor()
model = tiny_model(processor.vocabulary.size)
folder = tiny_checkpoint(tmp_path)                  # on disk, semantic tokenizer included
wav = tiny_speech(seconds=1.0)                      # not speech, but not silence either
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from speechllm.audio import Audio
from speechllm.models.audiolm import AudioLM, AudioLMConfig
from speechllm.models.soundstorm import SoundStorm, SoundStormConfig
from speechllm.processor import UnifiedProcessor
from speechllm.tasks import TrainedFor
from speechllm.tokenizers.mel_rvq import MelRVQCodec, MelRVQConfig, fit_mel_rvq
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.tokenizers.vocoder import GriffinLimConfig
from speechllm.vocabulary import Vocabulary

NUM_CODES = 16
SENTENCES = (
    "good morning, the train leaves at nine", "bonjour, le train part à neuf heures", "turn on the light please",
    "allume la lumière s'il te plaît", "[ASR French]", "[AST English French]", "[S2ST French English]", "[TTS English]",
    "[MT English French]", "[ASR AST S2ST English French]",
)  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 8},
    "phi": {},
    "gpt_neox": {},
    "gpt2": {"n_inner": 48},
    "gemma": {"num_key_value_heads": 1, "head_dim": 8},
    "gemma2": {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 8, "final_logit_softcapping": 5.0},
    "gemma3_text": {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 8, "final_logit_softcapping": 5.0},
    "cohere": {"num_key_value_heads": 2, "logit_scale": 0.3},
    "granite": {"num_key_value_heads": 2, "logits_scaling": 3.0},
    "phi3": {"num_key_value_heads": 2},
    "olmo2": {"num_key_value_heads": 2},
    "smollm3": {"num_key_value_heads": 2},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
}
"The families that tests run over, with what they need beyond the common sizes."
UNPACKABLE: dict[str, dict[str, Any]] = {
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt_oss": {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
}
"Families whose packed examples see each other in transformers."


def tiny_text_tokenizer(num_ids: int = 320) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on a handful of sentences, with BOS, EOS and padding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<bos>", "<eos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=num_ids, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
    )


def tiny_semantic_tokenizer(num_codes: int = NUM_CODES) -> SemanticTokenizer:
    """Return k-means on log-mel frames at 12.5 Hz, fitted on noise: deterministic, and a few milliseconds to make."""
    from speechllm.tokenizers.features import LogMelFeatures, LogMelFeaturesConfig
    from speechllm.tokenizers.kmeans import KMeansConfig
    from speechllm.tokenizers.semantic import SemanticTokenizerConfig, fit_semantic_tokenizer

    features = LogMelFeatures(LogMelFeaturesConfig(frame_rate=12.5, num_mels=20))
    config = SemanticTokenizerConfig(codebook_size=num_codes, kmeans=KMeansConfig())
    return fit_semantic_tokenizer(features, [tiny_speech(seconds=8.0)], config, seed=0)


def tiny_processor(*, semantic: bool = True, num_codes: int = NUM_CODES) -> UnifiedProcessor:
    """Return a processor; without the semantic tokenizer it is faster to make but cannot read audio."""
    tokenizer = tiny_text_tokenizer()
    # Three text rows more than tokens, as pretrained models often have.
    vocabulary = Vocabulary.for_speech(len(tokenizer) + 3, num_codes)
    return UnifiedProcessor(tokenizer, vocabulary, tiny_semantic_tokenizer(num_codes) if semantic else None)


def tiny_model(
    vocab_size: int, family: str = "llama", *, tied: bool = False, seed: int = 0, width: int = 32
) -> PreTrainedModel:
    """Return a random two-layer causal LM of a transformers family, in eval mode."""
    config = AutoConfig.for_model(
        family, vocab_size=vocab_size, hidden_size=width, intermediate_size=width * 3 // 2, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=512, tie_word_embeddings=tied, initializer_range=0.2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, **(SIZES | UNPACKABLE)[family],
    )  # fmt: skip
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


def tiny_speech(seconds: float = 1.0, *, pitch: float = 150.0, sample_rate: int = 16_000, seed: int = 0) -> Audio:
    """Return a buzz whose loudness and colour change every 80 ms: something that k-means can tell apart."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    num_pieces = int(np.ceil(seconds / 0.08))
    weights = np.repeat(rng.uniform(0.02, 0.1, (num_pieces, 8)), int(0.08 * sample_rate), axis=0)[: len(time)]
    harmonics = np.sin(2 * np.pi * pitch * time[:, None] * np.arange(1, 9) * 1.7)
    return Audio((weights * harmonics).sum(axis=1).astype(np.float32), sample_rate)


def tiny_acoustic(num_conditions: int = NUM_CODES) -> tuple[MelRVQCodec, SoundStorm]:
    """Return a codec of two levels at 25 Hz and a random SoundStorm for it; it makes noise, not speech."""
    from speechllm.nn.conformer import ConformerConfig

    config = MelRVQConfig(num_codebooks=2, codebook_size=8, vocoder=GriffinLimConfig(num_iterations=2))
    codec = fit_mel_rvq([torch.from_numpy(tiny_speech(4.0).samples)], config, seed=0)
    torch.manual_seed(0)
    storm = SoundStorm(
        SoundStormConfig(
            num_conditions=num_conditions, num_codebooks=2, codebook_size=8, tied=False,
            trunk=ConformerConfig(width=16, num_layers=1, num_heads=2), codec_fingerprint=codec.fingerprint,
        )
    )  # fmt: skip
    return codec, storm.eval()


def tiny_audiolm(codec: MelRVQCodec, num_conditions: int = NUM_CODES) -> AudioLM:
    """Return random coarse and fine stages that keep time, one level each."""
    from speechllm.models.stage_layouts import CodeSizes
    from speechllm.models.token_lm import DecoderConfig, StageLMConfig

    stage = StageLMConfig(
        window_seconds=10.0, decoder=DecoderConfig(width=16, num_layers=1, num_heads=2, feed_forward=32)
    )
    sizes = CodeSizes(num_conditions=num_conditions, codebook_size=8, num_codebooks=2, num_coarse=1)
    torch.manual_seed(0)
    return AudioLM(
        AudioLMConfig(
            sizes=sizes, frame_rate=25.0, frames_per_condition=2, coarse=stage, fine=stage,
            codec_fingerprint=codec.fingerprint,
        )
    ).eval()  # fmt: skip


def tiny_checkpoint(
    folder: str | Path,
    *,
    tied: bool = False,
    seed: int = 0,
    acoustic: bool = False,
    trained: TrainedFor | None = None,
) -> Path:
    """Save a whole tiny checkpoint (LM, text tokenizer, semantic tokenizer; codec and SoundStorm if asked for)."""
    from speechllm.hub import save_checkpoint

    processor = tiny_processor()
    codec, storm = tiny_acoustic() if acoustic else (None, None)
    model = tiny_model(processor.vocabulary.size, tied=tied, seed=seed)
    return save_checkpoint(folder, model, processor, codec=codec, acoustic=storm, trained=trained)
