"""Token shards: codes are the tokenizer's own, in any batching, and never meet another tokenizer."""

from dataclasses import replace

import numpy as np
import pytest

from speechllm.audio import Audio, encode_flac, load_audio
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation
from speechllm.data.tokenize import read_tokens, token_report, tokenize_corpus
from speechllm.errors import DataError
from speechllm.tasks import TaskTag
from speechllm.tokenizers.fake import FakeSemanticTokenizer


def noise(i, seconds):
    return encode_flac(Audio(0.1 * np.random.default_rng(i).standard_normal(int(seconds * 16_000)), 16_000))


RECORDS = [
    Record(
        id=f"r{i}",
        split="test" if i % 4 == 3 else "train",
        language="en",
        text=f"sentence {i}",
        audio=noise(i, 0.3 + 0.07 * (i * 5 % 7)),
        speaker="a",
        label_source="synthetic",
        translation=None if i == 2 else Translation("fr", f"phrase {i}", noise(100 + i, 0.25), "b", "pseudo"),
    )
    for i in range(10)
]
TEXT_ONLY = Record("text", "train", "en", "only text", translation=Translation("fr", "du texte"))


@pytest.fixture
def corpus(tmp_path):
    prepare_corpus([*RECORDS, TEXT_ONLY], tmp_path / "corpus", records_per_shard=4)
    return tmp_path / "corpus"


def test_rows_hold_the_codes_of_their_audio(corpus, tmp_path):
    tokenizer = FakeSemanticTokenizer(16)
    report = tokenize_corpus(corpus, tokenizer, tmp_path / "tokens", batch_size=3)
    rows = {row.id: row for row in read_tokens(tmp_path / "tokens", expected_fingerprint=tokenizer.fingerprint)}
    assert list(rows) == [r.id for r in sorted([*RECORDS, TEXT_ONLY], key=lambda r: r.split == "test")]
    for record in RECORDS:
        row = rows[record.id]
        (codes,) = tokenizer.encode([load_audio(record.audio)])
        assert row.codes.dtype == np.int64
        assert np.array_equal(row.codes, codes)
        assert row.duration_seconds == load_audio(record.audio).duration_seconds
        assert (row.language, row.text, row.speaker, row.label_source) == ("en", record.text, "a", "synthetic")
    assert rows["r0"].translation_label_source == "pseudo"
    assert rows["r2"].translation_language is None
    assert rows["r2"].translation_codes is None
    assert report.num_rows == {"train": 9, "test": 2}
    assert report == token_report(tmp_path / "tokens")
    assert (report.codebook_size, report.frame_rate) == (16, 25.0)


def test_batch_size_changes_nothing(corpus, tmp_path):
    for batch_size in (1, 4, 64):
        tokenize_corpus(corpus, FakeSemanticTokenizer(16), tmp_path / str(batch_size), batch_size=batch_size)
    contents = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("1", "4", "64")]
    assert contents[0] == contents[1] == contents[2]


def test_fields_turn_round(corpus, tmp_path):
    tokenize_corpus(corpus, FakeSemanticTokenizer(16), tmp_path / "tokens")
    rows = {row.id: row for row in read_tokens(tmp_path / "tokens", "train")}
    forward, backward = rows["r0"].fields(), rows["r0"].fields(reverse=True)
    swapped = {"audio": "translated_audio", "transcript": "translation"}
    for here, there in (swapped | {there: here for here, there in swapped.items()}).items():
        assert np.array_equal(forward[here], backward[there])
    assert rows["r0"].languages() == ("en", "fr")
    assert rows["r0"].languages(reverse=True) == ("fr", "en")
    assert set(rows["r2"].fields()) == {"audio", "transcript"}
    assert set(rows["r2"].fields(reverse=True)) == {"translated_audio", "translation"}
    assert rows["text"].fields() == {"transcript": "only text", "translation": "du texte"}


def test_fields_are_what_tasks_take(corpus, tmp_path):
    tokenize_corpus(corpus, FakeSemanticTokenizer(16), tmp_path / "tokens")
    row = next(read_tokens(tmp_path / "tokens", "test"))
    example = TaskTag.parse("[ASR AST S2ST French English]").example(row.fields(reverse=True))
    assert [segment.modality for segment in example.target] == ["text", "text", "audio"]
    assert example.target[0].text == "phrase 3"


def test_tokens_of_another_tokenizer_are_refused(corpus, tmp_path):
    tokenize_corpus(corpus, FakeSemanticTokenizer(16), tmp_path / "tokens")
    other = FakeSemanticTokenizer(32)
    with pytest.raises(DataError, match=f"expected {other.fingerprint}"):
        next(read_tokens(tmp_path / "tokens", "train", expected_fingerprint=other.fingerprint))
    with pytest.raises(DataError, match="begun with fingerprint"):
        tokenize_corpus(corpus, other, tmp_path / "tokens")


@pytest.mark.parametrize("changed", ["audio", "translation"])
def test_a_corpus_that_changed_is_not_taken_for_done(corpus, tmp_path, changed):
    tokenize_corpus(corpus, FakeSemanticTokenizer(16), tmp_path / "tokens")
    other = {"audio": noise(77, 0.4), "translation": replace(RECORDS[0].translation, text="autre")}[changed]
    records = [replace(RECORDS[0], **{changed: other}), *RECORDS[1:], TEXT_ONLY]
    with pytest.raises(DataError, match="other records"):
        prepare_corpus(records, corpus, records_per_shard=4)
    prepare_corpus(records, tmp_path / "other", records_per_shard=4)
    with pytest.raises(DataError, match="other records"):
        tokenize_corpus(tmp_path / "other", FakeSemanticTokenizer(16), tmp_path / "tokens")


class OutOfRangeTokenizer(FakeSemanticTokenizer):
    """Gives codes that its codebook does not have."""

    def encode(self, audios):
        return [codes + self.codebook_size for codes in super().encode(audios)]


def test_codes_beyond_the_codebook_are_refused(corpus, tmp_path):
    with pytest.raises(DataError, match="expected 0 to 15"):
        tokenize_corpus(corpus, OutOfRangeTokenizer(16), tmp_path / "tokens")


def test_a_folder_of_records_is_no_folder_of_tokens(corpus):
    with pytest.raises(DataError, match="holds records, expected tokens"):
        next(read_tokens(corpus, "train"))


def test_batch_size_is_checked(corpus, tmp_path):
    with pytest.raises(DataError, match="batch_size is 0, expected at least 1"):
        tokenize_corpus(corpus, FakeSemanticTokenizer(16), tmp_path / "tokens", batch_size=0)
