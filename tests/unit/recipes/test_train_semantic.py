"""From a config to a semantic tokenizer."""

import numpy as np
import pytest
import yaml

from recipes.train_semantic import SemanticTrainConfig, main, training_audio
from speechllm.audio import Audio, encode_flac
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation
from speechllm.errors import ConfigError
from speechllm.tokenizers.semantic import SemanticTokenizer


def tone(frequency: float) -> bytes:
    samples = 0.3 * np.sin(2 * np.pi * frequency * np.arange(8_000) / 16_000)
    return encode_flac(Audio(samples + 0.01 * np.random.default_rng(0).standard_normal(8_000), 16_000))


def records(first: int, count: int):
    for i in range(first, first + count):
        other = Translation("fr", "deux", tone(900 + 40 * i))
        yield Record(f"r{i}", "train", "en", "one", tone(200 + 40 * i), translation=other)
    yield Record("held", "test", "en", "one", tone(100))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    for name, first, count in (("a", 0, 4), ("b", 10, 2)):
        prepare_corpus(records(first, count), folder / name)
    return [str(folder / "a"), str(folder / "b")]


def write(tmp_path, corpora, **content):
    config = {"corpora": corpora, "out": str(tmp_path / "semantic"), "tokenizer": {"codebook_size": 4}} | content
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def test_corpora_take_turns_and_held_out_audio_is_never_seen(corpora):
    config = SemanticTrainConfig(kind="log-mel", corpora=corpora)
    peaks = [
        int(np.abs(np.fft.rfft(audio.samples)).argmax() * 16_000 / audio.num_samples)
        for audio in training_audio(config)
    ]
    assert peaks == [200, 600, 900, 1300, 240, 640, 940, 1340, 280, 980, 320, 1020]


def test_the_draw_is_bounded_and_a_function_of_the_seed(corpora):
    def drawn(seed: int) -> list[bytes]:
        config = SemanticTrainConfig(kind="log-mel", corpora=corpora, max_records=1, seed=seed)
        return [audio.samples.tobytes() for audio in training_audio(config)]

    assert len(drawn(0)) == 4
    assert drawn(0) == drawn(0)
    assert any(drawn(0) != drawn(seed) for seed in range(1, 5))


@pytest.mark.parametrize("kind", ["log-mel", "ctc"])
def test_a_config_becomes_a_tokenizer_that_is_kept(tmp_path, corpora, kind):
    trunk = {"width": 16, "num_layers": 1, "num_heads": 2}
    loop = {"steps": 2, "progress": False}
    path = write(tmp_path, corpora, kind=kind, ctc={"trunk": trunk, "stem_width": 8, "batch_size": 2, "loop": loop})
    folder = main(path)
    tokenizer = SemanticTokenizer.from_pretrained(folder)
    assert tokenizer.codebook_size == 4
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert main(path) == folder
    with pytest.raises(ConfigError, match=r"was made with seed = 0, the config has 5; choose another out"):
        main(path, ["seed=5"])
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "transformers"}, "needs a section transformers"),
        ({"kind": "log-mel", "max_records": "many"}, "max_records = .many."),
        ({"kind": "log-mels"}, "kind = 'log-mels'"),
        ({"kind": "log-mel", "max_record": 3}, "unknown key 'max_record'; did you mean 'max_records'"),
    ],
)
def test_a_wrong_config_is_said_in_one_line(tmp_path, corpora, content, message):
    with pytest.raises(ConfigError, match=message):
        main(write(tmp_path, corpora, **content))


def test_no_corpora_is_said_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="corpora is empty"):
        main(write(tmp_path, [], kind="log-mel"))
