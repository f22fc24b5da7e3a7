"""Importers: a table or a dataset becomes the records it describes, or one line says why not."""

import json

import datasets
import numpy as np
import pytest

from data_prep import dataset, table
from speechllm.audio import Audio, encode_flac, load_audio, save_audio
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Translation
from speechllm.errors import DataError

ROWS = [
    {"path": "a.wav", "sentence": "bonjour, le monde", "who": "anna", "set": "train"},
    {"path": "b.wav", "sentence": "au revoir", "who": "paul", "set": "test"},
]


def noise(seed=0):
    return Audio(0.1 * np.random.default_rng(seed).standard_normal(4_000), 16_000)


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "b.wav"):
        save_audio(noise(), tmp_path / name)
    header = list(ROWS[0])
    for suffix, separator in ((".csv", ","), (".tsv", "\t")):
        cells = [[f'"{row[name]}"' for name in header] for row in ROWS]
        lines = [separator.join(header), *(separator.join(row) for row in cells)]
        (tmp_path / f"clips{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return tmp_path


OPTIONS = {"audio": "path", "text": "sentence", "language": "French", "columns": {"speaker": "who", "split": "set"}}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_every_format_gives_the_same_records(folder, suffix):
    first, second = table.records(folder / f"clips{suffix}", **OPTIONS)
    assert (first.id, first.split, first.language, first.speaker) == ("0000001", "train", "fr", "anna")
    assert first.text == "bonjour, le monde"
    assert first.audio == folder / "a.wav"
    assert second.split == "test"
    report = prepare_corpus(table.records(folder / f"clips{suffix}", **OPTIONS), folder / "corpus")
    assert report.num_records == {"train": 1, "test": 1}


def test_columns_with_the_names_of_fields_need_no_mapping(tmp_path):
    row = {"id": "x", "text": "good morning", "language": "en", "translation": "bonjour", "translation_language": "fr"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    (record,) = table.records(tmp_path / "t.jsonl")
    assert (record.id, record.text, record.audio) == ("x", "good morning", None)
    assert record.translation == Translation("fr", "bonjour")


def test_json_lines_may_leave_fields_out(tmp_path):
    rows = [
        {"text": "good morning", "language": "en"},
        {"text": "good evening", "language": "en", "split": "test", "who": "anna", "id": "x"},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = table.records(tmp_path / "t.jsonl", columns={"speaker": "who"})
    assert (first.id, first.split, first.speaker) == ("0000001", "train", "")
    assert (second.id, second.split, second.speaker) == ("x", "test", "anna")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": "sentense"}, r"no column 'sentense' for text; did you mean 'sentence'\? \(columns: path, sentence"),
        ({"audio": None, "text": None}, "neither a column for audio nor one for text"),
        ({"language": ""}, "no column for the language; give language="),
        ({"language": "frnech"}, r"row 1: unknown language 'frnech'; did you mean 'French'"),
        ({"translation": "who"}, "has a translation but no language for it"),
        ({"columns": {"speeker": "who"}}, "unknown field 'speeker'; did you mean 'speaker'"),
    ],
)
def test_a_wrong_mapping_is_one_clear_line(folder, changed, message):
    with pytest.raises(DataError, match=message) as error:
        list(table.records(folder / "clips.csv", **OPTIONS | changed))
    assert "\n" not in str(error.value)


def test_a_transcript_without_its_audio_is_named(folder):
    (folder / "b.wav").unlink()
    report = prepare_corpus(table.records(folder / "clips.csv", **OPTIONS), folder / "corpus")
    assert [(failure.id, failure.reason) for failure in report.failures] == [
        ("0000002", f"no audio file at {folder / 'b.wav'}")
    ]
    with pytest.raises(DataError, match=r"record '0000002': no audio file at .*b\.wav"):
        prepare_corpus(table.records(folder / "clips.csv", **OPTIONS), folder / "other", on_error="raise")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xlsx", "", "expected .csv, .tsv or .jsonl"),
        ("t.jsonl", "{", "line 1 is not JSON"),
        ("t.jsonl", "[1]", "line 1 holds list"),
        ("t.csv", "text,language\n", "has no rows"),
        ("t.csv", "text,language\na,en,b\n", "row 1 has more cells than there are columns"),
        ("missing.csv", None, "cannot read"),
    ],
)
def test_a_broken_table_is_one_clear_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        list(table.records(tmp_path / name))


@pytest.fixture
def saved(tmp_path):
    rows = {
        "audio": [{"bytes": encode_flac(noise(i)), "path": None} for i in range(3)],
        "sentence": [f"phrase {i}" for i in range(3)],
    }
    parts = {name: datasets.Dataset.from_dict(rows) for name in ("train", "test")}
    parts = {name: part.cast_column("audio", datasets.Audio(decode=False)) for name, part in parts.items()}
    return datasets.DatasetDict(parts)


def test_a_dataset_on_disk_gives_its_splits(saved, tmp_path):
    saved.save_to_disk(str(tmp_path / "saved"))
    found = list(dataset.records(str(tmp_path / "saved"), columns={"text": "sentence"}, language="fr"))
    assert [(r.id, r.split, r.text) for r in found[:2]] == [
        ("train-0000001", "train", "phrase 0"),
        ("train-0000002", "train", "phrase 1"),
    ]
    assert len(found) == 6
    assert load_audio(found[0].audio).num_samples == 4_000
    only = dataset.records(str(tmp_path / "saved"), splits=["test"], columns={"text": "sentence"}, language="fr")
    assert {r.split for r in only} == {"test"}


@pytest.mark.parametrize("streaming", [True, False])
def test_a_folder_of_parquet_is_read_without_decoding(saved, tmp_path, streaming, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "files").mkdir()
    saved["train"].to_parquet(str(tmp_path / "files" / "train-00000.parquet"))
    source = str(tmp_path / "files")
    found = list(dataset.records(source, columns={"text": "sentence"}, language="fr", streaming=streaming))
    assert [r.text for r in found] == ["phrase 0", "phrase 1", "phrase 2"]
    assert load_audio(found[2].audio).num_samples == 4_000


def test_a_dataset_that_does_not_fit_is_one_clear_line(saved, tmp_path):
    saved.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="no split 'dev'; it has train, test"):
        list(dataset.records(str(tmp_path / "saved"), splits=["dev"], language="fr"))
    with pytest.raises(DataError, match="no column 'text' for text"):
        list(dataset.records(str(tmp_path / "saved"), columns={"text": "text"}, language="fr"))
    with pytest.raises(DataError, match="cannot load dataset"):
        list(dataset.records(str(tmp_path / "nothing"), language="fr"))
