"""Random models of other kinds on disk, for what must not disturb them: tiny_vits(tmp_path / "vits")."""

import json
from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration, VitsConfig, VitsModel, VitsTokenizer


def tiny_vits(folder: Path) -> Path:
    """Save a random VITS that speaks letters at 16 kHz."""
    letters = {letter: i for i, letter in enumerate(" abcdefghijklmnopqrstuvwxyz")}
    config = VitsConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, flow_size=16,
        spectrogram_bins=9, prior_encoder_num_flows=1, prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1, duration_predictor_num_flows=1, duration_predictor_filter_channels=16,
        upsample_initial_channel=16, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8], resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]], depth_separable_num_layers=1, num_speakers=1,
    )  # fmt: skip
    torch.manual_seed(0)
    VitsModel(config).save_pretrained(folder)
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps(letters))
    tokenizer = VitsTokenizer(str(vocabulary), pad_token=" ", unk_token=" ", phonemize=False, add_blank=False)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_t5(folder: Path) -> Path:
    """Save a random T5, without a tokenizer."""
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder
