"""A random Whisper on disk, for what must work with any: tiny_whisper(tmp_path / "whisper")."""

from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer


def tiny_whisper(folder: Path) -> Path:
    """Save a random Whisper, small, with a feature extractor and a tokenizer of letters."""
    size = 300
    config = WhisperConfig(
        vocab_size=size, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=80, max_target_positions=40,
        decoder_start_token_id=1, bos_token_id=1, eos_token_id=2, pad_token_id=0, begin_suppress_tokens=None,
        suppress_tokens=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    model.generation_config.max_length = None
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    letters = {letter: i for i, letter in enumerate(["<pad>", *special, *sorted(ByteLevel.alphabet())])}
    WhisperTokenizer(vocab=letters, merges=[], pad_token="<pad>").save_pretrained(folder)
    return folder
