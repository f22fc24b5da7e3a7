"""The recipes at the papers' sizes: what they build, and the same programs at toy size with pretrained parts."""

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from recipes import train_audiolm, train_soundstorm
from recipes.acoustic_parts import CodecChoice, HubCodec, make_codec
from speechllm.audio import encode_flac, load_audio
from speechllm.config import load_config
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record
from speechllm.errors import ConfigError
from speechllm.models.audiolm import AudioLM, AudioLMConfig
from speechllm.models.soundstorm import SoundStorm, SoundStormConfig
from speechllm.models.stage_layouts import CodeSizes
from speechllm.tokenizers.codec import load_codec
from speechllm.tokenizers.pretrained_codec import PretrainedCodec
from tests.support import tiny_codecs
from tests.support.tiny import tiny_speech

RECIPES = Path(__file__).parents[3] / "recipes"
AUDIOLM, SOUNDSTORM = (RECIPES / f"{name}_16khz" / "config.yaml" for name in ("audiolm", "soundstorm"))
SMOKE_LOOP = ("steps=2", "warmup_steps=1", "bf16=false", "progress=false")
SMOKE = (
    "corpus={corpus}", "out={out}", "semantic.transformers={{source: {hubert}, layer: 1, frame_rate: 25.0}}",
    "semantic.tokenizer.codebook_size=8", "semantic.device=cpu", "codec.hub={{source: {dac}, num_codebooks: 4}}",
    "samples.count=1", "samples.prompt_seconds=0.4",
)  # fmt: skip
SMOKE_AUDIOLM = (
    *SMOKE, "audiolm.num_codebooks=4", "audiolm.num_coarse=2", "samples.seconds=0.4",
    *(f"audiolm.{stage}.loop.{one}" for stage in ("semantic", "coarse", "fine") for one in SMOKE_LOOP),
    *(
        f"audiolm.{stage}.{one}"
        for stage in ("semantic", "coarse", "fine")
        for one in ("batch_size=2", "lm.decoder={{width: 16, num_layers: 1, num_heads: 2, feed_forward: 32}}")
    ),
)  # fmt: skip
SMOKE_SOUNDSTORM = (
    *SMOKE, "soundstorm.num_codebooks=4", "soundstorm.trunk={{width: 16, num_layers: 1, num_heads: 2}}",
    *(f"soundstorm.loop.{one}" for one in SMOKE_LOOP),
)  # fmt: skip


def millions(model):
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def test_audiolm_has_the_sizes_of_its_paper():
    config = load_config(train_audiolm.AudioLMRecipeConfig, AUDIOLM).audiolm
    runs = {name: getattr(config, name).lm for name in ("semantic", "coarse", "fine")}
    for lm, seconds, dedup in zip(runs.values(), (30, 10, 3), (True, True, False), strict=True):
        sizes = lm.decoder
        assert (sizes.num_layers, sizes.num_heads, sizes.width, sizes.feed_forward) == (12, 16, 1024, 4096)
        assert (lm.window_seconds, lm.dedup, sizes.dropout) == (seconds, dedup, 0.1)
    stages = {name: dataclasses.replace(lm, tokens_per_second=20.0 if lm.dedup else None) for name, lm in runs.items()}
    codes = CodeSizes(
        num_conditions=1024, codebook_size=1024, num_codebooks=config.num_codebooks, num_coarse=config.num_coarse
    )
    with torch.device("meta"):
        model = AudioLM(AudioLMConfig(sizes=codes, frame_rate=50.0, frames_per_condition=2, **stages))
    # 12 x (4 x 1024^2 + 3 x 1024 x 4096) and the tables: 0.2 billion, where the paper says 0.3.
    assert [round(millions(getattr(model, name))) for name in runs] == [203, 211, 222]


def test_soundstorm_has_the_size_of_its_paper():
    config = load_config(train_soundstorm.SoundStormRecipeConfig, SOUNDSTORM).soundstorm
    trunk = config.trunk
    assert (trunk.num_layers, trunk.num_heads, trunk.width, trunk.feed_forward_factor, trunk.kernel_size) == (
        12, 16, 1024, 4, 5,
    )  # fmt: skip
    with torch.device("meta"):
        model = SoundStorm(
            SoundStormConfig(
                num_conditions=1024, num_codebooks=config.num_codebooks, codebook_size=1024, tied=config.tied,
                start_context=config.start_context, trunk=trunk,
            )
        )  # fmt: skip
    # 350 million in the paper.
    assert round(millions(model)) == 316
    assert (config.batches.prompt_share, config.max_frames) == (0.0, 1500)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A corpus, a speech encoder and a codec in transformers' own format."""
    folder = tmp_path_factory.mktemp("parts")
    prepare_corpus(
        [
            Record(f"{split}{i}", split, "en", "one", encode_flac(tiny_speech(1.0, seed=i)), f"s{i % 2}")
            for i, split in enumerate(("train", "train", "train", "test"))
        ],
        folder / "corpus",
    )
    torch.manual_seed(0)
    convolutions = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    HubertModel(HubertConfig(**sizes, **convolutions)).save_pretrained(folder / "hubert")
    Wav2Vec2FeatureExtractor().save_pretrained(folder / "hubert")
    tiny_codecs.dac_model(ratios=(4, 5, 16)).save_pretrained(folder / "dac")
    return folder


def overrides(smoke, parts, out):
    names = {"corpus": parts / "corpus", "out": out, "hubert": parts / "hubert", "dac": parts / "dac"}
    return [one.format(**names) for one in smoke]


def samples_of(out):
    return sorted(file.name for file in (out / "samples").iterdir())


def test_audiolm_with_pretrained_parts(parts, tmp_path):
    folder = train_audiolm.main(AUDIOLM, overrides(SMOKE_AUDIOLM, parts, tmp_path))
    model = AudioLM.from_pretrained(folder)
    assert (model.config.frame_rate, model.config.frames_per_condition) == (50.0, 2)
    assert samples_of(tmp_path) == ["acoustic-0.wav", "continuation-0.wav", "unconditional-0.wav"]
    assert (tmp_path / "codes.safetensors").exists()
    assert load_codec(tmp_path / "codec").fingerprint == model.config.codec_fingerprint


def test_soundstorm_with_pretrained_parts_is_kept(parts, tmp_path):
    chosen = overrides(SMOKE_SOUNDSTORM, parts, tmp_path)
    folder = train_soundstorm.main(SOUNDSTORM, chosen)
    config = SoundStorm.from_pretrained(folder).config
    assert (config.num_codebooks, config.frames_per_condition, config.tied) == (4, 2, False)
    assert samples_of(tmp_path) == ["drawn-0.wav", "original-0.wav", "prompted-0.wav"]
    for kind in ("drawn", "prompted"):
        # Semantic codes of 40 ms for a second of speech.
        sample = load_audio(tmp_path / "samples" / f"{kind}-0.wav")
        assert sample.duration_seconds == pytest.approx(1.0, abs=0.05)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert train_soundstorm.main(SOUNDSTORM, chosen) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match=r"was made with soundstorm\.temperature"):
        train_soundstorm.main(SOUNDSTORM, [*chosen, "soundstorm.temperature=0.5"])


def test_codecs_come_from_where_the_config_says(parts, tmp_path):
    hub = CodecChoice(kind="hub", hub=HubCodec(source=str(parts / "dac"), num_codebooks=2))
    make_codec(str(parts / "corpus"), hub, tmp_path / "hub", seed=0)
    codec = load_codec(tmp_path / "hub")
    assert isinstance(codec, PretrainedCodec)
    assert codec.num_codebooks == 2
    make_codec("", CodecChoice(kind="folder", folder=str(tmp_path / "hub")), tmp_path / "copy", seed=0)
    assert load_codec(tmp_path / "copy").fingerprint == codec.fingerprint
    with pytest.raises(ConfigError, match=r"codec\.kind = 'hub' with codec\.hub = None; set both"):
        CodecChoice(kind="hub")
    with pytest.raises(ConfigError, match=r"codec\.kind = 'mel-rvq' with codec\.folder = 'x'"):
        CodecChoice(folder="x")
    config = load_config(
        train_audiolm.AudioLMRecipeConfig, AUDIOLM, ["codec.kind=folder", "codec.folder=a", "codec.hub=null"]
    )
    assert (config.codec.folder, config.codec.hub) == ("a", None)
