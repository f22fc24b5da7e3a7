"""A small codec of every kind, with codebooks filled at random or fitted."""

import torch

from speechllm.nn.rvq import RVQConfig
from speechllm.nn.seanet import SEANetConfig
from speechllm.tokenizers.kmeans import KMeansConfig
from speechllm.tokenizers.mel import LogMelConfig
from speechllm.tokenizers.mel_rvq import MelRVQConfig, fit_mel_rvq
from speechllm.tokenizers.pretrained_codec import PretrainedCodec, PretrainedCodecConfig
from speechllm.tokenizers.soundstream import SoundStreamCodec, SoundStreamConfig
from speechllm.tokenizers.vocoder import GriffinLimConfig


def tones(seed, samples=24_000):
    """Return a chain of tones whose pitch and loudness change ten times a second."""
    generator = torch.Generator().manual_seed(seed)
    steps = -(-samples // 1_600)
    pitch = torch.rand(steps, generator=generator) * 900 + 100
    loudness = torch.rand(steps, generator=generator) * 0.4
    phase = (pitch.repeat_interleave(1_600) / 16_000).cumsum(0)
    return (torch.sin(2 * torch.pi * phase) * loudness.repeat_interleave(1_600))[:samples]


def mel_rvq():
    config = MelRVQConfig(
        mel=LogMelConfig(num_mels=20),
        num_codebooks=3,
        codebook_size=16,
        vocoder=GriffinLimConfig(num_iterations=4),
        kmeans=KMeansConfig(passes=2),
    )
    return fit_mel_rvq([tones(seed) for seed in range(12)], config, seed=0)


def soundstream_config(**seanet):
    return SoundStreamConfig(
        seanet=SEANetConfig(width=4, latent_width=16, strides=(4, 5), dilations=(1, 3), **seanet),
        quantizer=RVQConfig(num_codebooks=3, codebook_size=32),
    )


def soundstream(**seanet):
    """Return a codec with a random network and codebooks that were fitted to a batch."""
    torch.manual_seed(0)
    codec = SoundStreamCodec(soundstream_config(**seanet)).train()
    with torch.no_grad():
        codec(torch.stack([tones(seed, 8_000) for seed in range(6)]))
    return codec.eval()


def encodec_model():
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig(
        target_bandwidths=[6.0, 18.0],
        sampling_rate=16_000,
        hidden_size=16,
        num_filters=4,
        upsampling_ratios=[4, 4],
        num_lstm_layers=1,
        codebook_size=64,
    )
    model = _filled(EncodecModel, config)
    # Its random latents lie close together and far from 0, where no random codebook reaches.
    latents = model.encoder(tones(9, 64 * 500)[None, None])[0].T[::7][:64].detach()
    for level, layer in enumerate(model.quantizer.layers):
        layer.codebook.embed.copy_(latents if level == 0 else (latents - latents.mean(0)) * 0.3**level)
    return model


def dac_model(ratios=(2, 5)):
    from transformers import DacConfig, DacModel

    config = DacConfig(
        encoder_hidden_size=4,
        downsampling_ratios=list(ratios),
        decoder_hidden_size=16,
        n_codebooks=4,
        codebook_size=64,
        codebook_dim=4,
    )
    return _filled(DacModel, config)


def mimi_model():
    from transformers import MimiConfig, MimiModel

    config = MimiConfig(
        sampling_rate=16_000,
        hidden_size=16,
        num_filters=4,
        upsampling_ratios=[4, 5],
        codebook_size=64,
        codebook_dim=8,
        num_quantizers=4,
        vector_quantization_hidden_dimension=8,
        upsample_groups=16,
        num_hidden_layers=2,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=6,
        layer_scale_initial_scale=1.0,
    )
    return _filled(MimiModel, config)


def xcodec_model():
    from transformers import DacConfig, HubertConfig, XcodecConfig, XcodecModel

    acoustic = DacConfig(encoder_hidden_size=4, downsampling_ratios=[8, 5, 4, 2], decoder_hidden_size=32)
    acoustic.hidden_size = 16
    semantic = HubertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    config = XcodecConfig(
        target_bandwidths=[0.3, 0.9],
        codebook_size=64,
        acoustic_model_config=acoustic,
        semantic_model_config=semantic,
    )
    return _filled(XcodecModel, config)


def pretrained(model, num_codebooks=3):
    return PretrainedCodec(model, PretrainedCodecConfig(num_codebooks=num_codebooks))


def _filled(model_class, config):
    """Return a random model whose codebooks are random, too: transformers leaves them at zero."""
    torch.manual_seed(0)
    model = model_class(config).eval()
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith((".embed", ".embed_sum")):
            # Each level finer than the one before: so that the residuals choose many codes.
            level = int(name.split(".layers.")[-1].split(".")[0]) if ".layers." in name else 0
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.5**level)
    return model
