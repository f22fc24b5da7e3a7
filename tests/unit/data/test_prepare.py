"""Prepared corpora: records come back, audio is what it was, and nothing is lost without a word."""

import io

import datasets
import numpy as np
import pytest
import soundfile

from speechllm.audio import Audio, encode_flac, load_audio
from speechllm.data.prepare import corpus_report, prepare_corpus, read_corpus
from speechllm.data.records import Record, Translation
from speechllm.errors import DataError


def tone(seconds=0.2, sample_rate=16_000, frequency=300.0):
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    return Audio(0.3 * np.sin(2 * np.pi * frequency * time), sample_rate)


def wav(audio, subtype="PCM_16"):
    buffer = io.BytesIO()
    soundfile.write(buffer, audio.samples, audio.sample_rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


def record(i, split="train", **changed):
    other = Translation("fr", f"phrase {i}", encode_flac(tone(0.15)), "b", "pseudo")
    fields = {"text": f"sentence {i}", "audio": encode_flac(tone(0.1 + i / 100)), "speaker": "a", "translation": other}
    return Record(**{"id": f"r{i}", "split": split, "language": "en"} | fields | changed)


def test_records_come_back_in_order(tmp_path):
    records = [record(i, "test" if i % 3 == 0 else "train") for i in range(8)]
    prepare_corpus(records, tmp_path, records_per_shard=2)
    for split in ("train", "test"):
        assert list(read_corpus(tmp_path, split)) == [r for r in records if r.split == split]
    assert {r.id for r in read_corpus(tmp_path)} == {r.id for r in records}


def test_text_and_audio_may_be_missing_on_either_side(tmp_path):
    records = [
        record(0, audio=None),
        record(1, text="", translation=None),
        record(2, translation=Translation("fr", "phrase")),
        record(3, translation=Translation("fr", audio=encode_flac(tone()))),
    ]
    prepare_corpus(records, tmp_path)
    assert list(read_corpus(tmp_path, "train")) == records


def test_flac_of_the_right_kind_keeps_its_bytes(tmp_path):
    content = encode_flac(tone())
    prepare_corpus([record(0, audio=content)], tmp_path)
    assert next(read_corpus(tmp_path)).audio == content


@pytest.mark.parametrize("sample_rate", [8_000, 44_100])
def test_other_audio_becomes_flac_at_the_corpus_rate(tmp_path, sample_rate):
    path = tmp_path / "clip.wav"
    path.write_bytes(wav(tone(0.5, sample_rate)))
    prepare_corpus([record(0, audio=path)], tmp_path / "corpus")
    stored = next(read_corpus(tmp_path / "corpus")).audio
    info = soundfile.info(io.BytesIO(stored))
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", 16_000, 1)
    assert load_audio(stored).duration_seconds == pytest.approx(0.5, abs=1e-3)


def bad_audio():
    nan = tone().samples.copy()
    nan[7] = np.nan
    whole = wav(tone())
    return {
        "empty": (b"", "is empty: it holds no bytes"),
        "no-samples": (wav(Audio(np.zeros(0, np.float32), 16_000)), "empty"),
        "truncated": (whole[: len(whole) // 2], "cut short"),
        "nan": (wav(Audio(nan, 16_000), "FLOAT"), "NaN or infinite"),
        "text": (b"this is no audio at all, but a line of text", "not an audio file"),
    }


def test_bad_audio_is_reported_with_its_reason_and_the_rest_kept(tmp_path):
    bad = bad_audio()
    records = [record(0), *(record(i + 1, id=name, audio=bad[name][0]) for i, name in enumerate(bad)), record(9)]
    missing = record(10, id="missing", audio=tmp_path / "nowhere.wav")
    translation = record(11, id="other-side", translation=Translation("fr", "x", b"bad"))
    report = prepare_corpus([*records, missing, translation], tmp_path / "corpus", records_per_shard=3)
    assert {failure.id for failure in report.failures} == {*bad, "missing", "other-side"}
    reasons = {failure.id: failure.reason for failure in report.failures}
    for name, (_, reason) in bad.items():
        assert reason in reasons[name]
    assert "no audio file at" in reasons["missing"]
    assert [r.id for r in read_corpus(tmp_path / "corpus")] == ["r0", "r9"]
    assert report.num_records == {"train": 2}
    assert corpus_report(tmp_path / "corpus") == report
    assert "7 left out" in str(report)


def test_raise_stops_at_the_first_bad_record(tmp_path):
    with pytest.raises(DataError, match="record 'broken': audio of 3 bytes is not an audio file"):
        prepare_corpus([record(0), record(1, id="broken", audio=b"bad")], tmp_path, on_error="raise")


def test_a_source_that_fails_at_once_leaves_no_folder(tmp_path):
    def broken():
        raise DataError("no such table")
        yield

    with pytest.raises(DataError, match="no such table"):
        prepare_corpus(broken(), tmp_path / "made" / "corpus")
    assert not (tmp_path / "made").exists()


def test_hours_are_those_of_the_audio(tmp_path):
    report = prepare_corpus([record(i, audio=encode_flac(tone(1.5))) for i in range(4)], tmp_path)
    assert report.hours["en"] == pytest.approx(6 / 3600)
    assert report.hours["fr"] == pytest.approx(0.6 / 3600)


def test_an_id_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match="'r0' comes twice"):
        prepare_corpus([record(0), record(0)], tmp_path)


def test_a_folder_of_another_rate_is_not_continued(tmp_path):
    prepare_corpus([record(0)], tmp_path)
    with pytest.raises(DataError, match="begun with fingerprint flac-16000, this run has flac-24000"):
        prepare_corpus([record(0)], tmp_path, sample_rate=24_000)


def test_datasets_reads_the_shards(tmp_path):
    prepare_corpus([record(i) for i in range(3)], tmp_path / "corpus", records_per_shard=2)
    files = sorted(str(path) for path in (tmp_path / "corpus").glob("train-*.parquet"))
    stream = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    rows = list(stream.cast_column("audio", datasets.Audio(decode=False)))
    assert [row["text"] for row in rows] == ["sentence 0", "sentence 1", "sentence 2"]
    assert load_audio(rows[0]["audio"]).duration_seconds == pytest.approx(0.1)
