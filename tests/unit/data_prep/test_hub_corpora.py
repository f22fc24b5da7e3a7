"""Corpora streamed through `datasets`: a folder with the columns and configurations that they have on the Hub."""

import io
import os
import subprocess
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import common_voice, fleurs, gigaspeech, librispeech, libritts, mls
from data_prep.dataset import PARQUET_EXPORT, HubSource, hub_source
from speechllm.errors import DataError
from tests.support.fake_hub import FakeHub
from tests.support.shipped_corpora import pitch_of, sound


def rows(columns, num=2):
    """Return rows with audio as bytes, a tone of 300 + 100 i Hz, and the given columns."""
    audio = [{"bytes": sound(".wav", 300 + 100 * i), "path": f"{i}.wav"} for i in range(num)]
    return {"audio": audio, **{name: [str(value).format(i) for i in range(num)] for name, value in columns.items()}}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Return a function that writes a dataset as it lies on the Hub: parquet by configuration and split."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def publish(splits, columns, config="default", table=True):
        top = tmp_path / "repository"
        entries = []
        for split in splits:
            path = top / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            part = datasets.Dataset.from_dict(
                rows({name: value.replace("SPLIT", split) for name, value in columns.items()})
            )
            part.cast_column("audio", datasets.Audio(decode=False)).to_parquet(str(path))
            entries.append(f"  - split: {split}\n    path: {config}/{path.name}")
        if table:
            lines = ["---", "configs:", f"- config_name: {config}", "  data_files:", *entries, "---", ""]
            (top / "README.md").write_text("\n".join(lines))
        return f"hub:{top}"

    return publish


def told(records):
    return [(r.id, r.split, r.language, r.text, r.speaker, pitch_of(r.audio)) for r in records]


def test_where_a_source_is():
    assert hub_source("hub", "google/fleurs") == HubSource("google/fleurs")
    assert hub_source("hub", "google/fleurs", "branch") == HubSource("google/fleurs", "branch")
    assert hub_source("hub:me/copy", "google/fleurs", "branch") == HubSource("me/copy")
    assert hub_source("hub:me/copy@v2", "google/fleurs") == HubSource("me/copy", "v2")
    assert hub_source("hubs/fleurs", "google/fleurs") is None
    with pytest.raises(DataError, match="no place of its own"):
        hub_source("hub", "")


def test_librispeech(published):
    splits = ["train.clean.100", "validation.clean"]
    columns = {"text": "CHAPTER {}", "speaker_id": "1{}", "id": "SPLIT-1{}-9-0"}
    source = published(splits, columns, "all")
    found = told(librispeech.records(source, splits=["train-clean-100", "dev-clean"]))
    assert found[0] == ("train.clean.100-10-9-0", "train", "en", "chapter 0", "10", 300)
    assert found[3] == ("validation.clean-11-9-0", "validation-clean", "en", "chapter 1", "11", 400)
    with pytest.raises(DataError, match=r"has no split 'test.clean'"):
        list(librispeech.records(source, splits=["test-clean"]))


def test_libritts(published):
    columns = {"text_normalized": "Mister {}", "text_original": "Mr. {}", "speaker_id": "1{}", "id": "SPLIT{}"}
    source = published(["dev.clean"], columns, "all")
    assert told(libritts.records(source, splits=["dev-clean"]))[1] == (
        "dev.clean1", "validation-clean", "en", "Mister 1", "11", 400,
    )  # fmt: skip


def test_mls(published):
    columns = {"transcript": "ses vers {}", "speaker_id": "1{}", "id": "SPLIT-{}"}
    source = published(["dev"], columns, "french")
    assert told(mls.records(source, "fr", splits=["dev"]))[0] == ("dev-0", "validation", "fr", "ses vers 0", "10", 300)


def test_common_voice(published):
    columns = {"sentence": "Bonjour {}.", "client_id": "c{}", "path": "clip{}.mp3", "locale": "fr"}
    source = published(["validation", "test"], columns, "fr")
    found = told(common_voice.records(source, "fr", splits=["dev"]))
    assert found == [
        (f"validation-clip{i}.mp3", "validation", "fr", f"Bonjour {i}.", f"c{i}", 300 + 100 * i) for i in (0, 1)
    ]


def test_gigaspeech(published):
    columns = {"segment_id": "POD{}", "text": "WHO IS IT <QUESTIONMARK>", "speaker": "N/A"}
    source = published(["validation"], columns, "xs")
    assert told(gigaspeech.records(source, splits=["dev"]))[0][:4] == (
        "validation-POD0",
        "validation",
        "en",
        "who is it?",
    )


@pytest.mark.parametrize("export", [False, True], ids=["configurations", "parquet export"])
def test_fleurs(published, export):
    columns = {"id": "1500", "path": "/x/{}.wav", "raw_transcription": "Le roi {}.", "transcription": "le roi {}"}
    source = published(["validation", "test"], columns, "fr_fr", table=not export)
    source = f"{source}@{PARQUET_EXPORT}" if export else source
    found = told(fleurs.records(source, "fr", splits=["dev", "test"]))
    assert found[0] == ("validation-/x/0.wav", "validation", "fr", "Le roi 0.", "", 300)
    assert [row[1] for row in found] == ["validation"] * 2 + ["test"] * 2


def test_a_dataset_with_other_columns_is_one_clear_line(published):
    source = published(["dev"], {"text": "{}"}, "french")
    with pytest.raises(DataError, match="has no column 'transcript' for text"):
        list(mls.records(source, "fr", splits=["dev"]))


STREAM = """
from data_prep import fleurs
from tests.support.shipped_corpora import pitch_of

for record in fleurs.records("hub", "fr", splits=["dev", "test"]):
    print(record.id, record.split, pitch_of(record.audio), record.text, sep=";")
"""


def exported(split):
    columns = {"id": "150{}", "path": "{}.wav", "raw_transcription": f"Le roi {{}} {split}.", "transcription": "x"}
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pydict(rows(columns)), buffer)
    return buffer.getvalue()


@pytest.mark.slow
def test_fleurs_is_streamed_over_http_from_the_export_of_its_language_alone(tmp_path):
    files = {f"{c}/{s}/0000.parquet": exported(s) for c in ("fr_fr", "en_us") for s in ("train", "validation", "test")}
    with FakeHub() as hub:
        # What is on the main branch is a loading script, which `datasets` refuses.
        script = hub.add(fleurs.HUB, {"README.md": b"---\n---\n", "fleurs.py": b"raise SystemExit"})
        repository = hub.repositories[fleurs.HUB]
        repository.refs = {PARQUET_EXPORT: hub.add(fleurs.HUB, files), "main": script}
        environment = os.environ | hub.environment(tmp_path)
        run = subprocess.run(
            [sys.executable, "-c", STREAM], env=environment, capture_output=True, text=True, check=False
        )
        read = [request for request in hub.requests if "bytes=" in request]
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        f"{split}-{i}.wav;{split};{300 + 100 * i};Le roi {i} {split}."
        for split in ("validation", "test")
        for i in (0, 1)
    ]
    assert read
    assert not [request for request in read if "/fr_fr/" not in request]
