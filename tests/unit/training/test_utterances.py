"""Codes of a corpus: kept for the next call, and made again when anything has changed."""

import numpy as np
import pytest

from speechllm.audio import encode_flac
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation
from speechllm.tokenizers.fake import FakeSemanticTokenizer
from speechllm.training.utterances import AcousticUtterance, encode_utterances, read_utterances, write_utterances
from tests.support import tiny_codecs
from tests.support.tiny import tiny_speech


def flac(seed):
    return encode_flac(tiny_speech(0.3 + 0.1 * seed, seed=seed))


def prepare(folder, count):
    prepare_corpus(
        [
            Record(
                f"r{i}", "train", "en", "one", flac(i), "anna" if i else "",
                translation=Translation("fr", "un", flac(i + 5), "paul"),
            )
            for i in range(count)
        ],
        folder,
    )  # fmt: skip
    return folder


class Forgetful:
    """A codec that counts how often it is asked."""

    def __init__(self, codec):
        self.codec, self.asked = codec, 0

    def __getattr__(self, name):
        return getattr(self.codec, name)

    def encode(self, waveforms):
        self.asked += 1
        return self.codec.encode(waveforms)


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a.semantic, b.semantic) and np.array_equal(a.acoustic, b.acoustic) and a.speaker == b.speaker
        for a, b in zip(first, second, strict=True)
    )


@pytest.fixture(scope="module")
def codec():
    return tiny_codecs.mel_rvq()


def test_codes_are_kept_and_made_again_after_a_change(tmp_path, codec):
    corpus, file = prepare(tmp_path / "corpus", 2), tmp_path / "new" / "codes.safetensors"
    tokenizer, counting = FakeSemanticTokenizer(8, frame_rate=12.5), Forgetful(codec)

    def encode(folder=corpus, num_codebooks=3, tokenizer=tokenizer):
        return encode_utterances(folder, tokenizer, counting, num_codebooks=num_codebooks, codes_file=file)

    made = encode()
    assert [one.speaker for one in made] == ["", "fr/paul", "en/anna", "fr/paul"]
    assert same(made, encode_utterances(corpus, tokenizer, codec, num_codebooks=3))
    assert same(made, encode())
    assert counting.asked == len(made), "the second time from the file"
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert encode(num_codebooks=2)[0].acoustic.shape[0] == 2
    encode(num_codebooks=2, tokenizer=FakeSemanticTokenizer(9, frame_rate=12.5))
    encode(prepare(tmp_path / "other", 1))
    assert counting.asked == 3 * len(made) + 2


def test_a_file_gives_back_what_was_written(tmp_path):
    rng = np.random.default_rng(0)
    written = [
        AcousticUtterance(rng.integers(70_000, size=n), rng.integers(1_024, size=(3, 2 * n + extra)), f"ü{n}")
        for n, extra in ((1, 0), (7, 1), (0, 0), (4, 0))
    ]
    write_utterances(tmp_path / "codes", written, {"codec": "a"})
    found = read_utterances(tmp_path / "codes", {"codec": "a"})
    assert found is not None
    assert same(written, found)
    assert read_utterances(tmp_path / "codes", {"codec": "b"}) is None
    assert read_utterances(tmp_path / "nothing", {"codec": "a"}) is None
