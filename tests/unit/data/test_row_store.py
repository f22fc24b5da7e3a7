"""Unpacked rows are those of the shards, made once, and never those of other shards."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from speechllm.data import row_store
from speechllm.data.plain_text import read_plain_text
from speechllm.data.row_store import RowStore, cache_folder, open_plain_text, open_tokens
from speechllm.data.shards import MANIFEST_FILE, write_shards
from speechllm.data.tokenize import TokenRow, read_tokens
from speechllm.errors import DataError
from tests.support.token_rows import row_layout, varied_rows


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(row_store.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "rows"


@pytest.fixture
def tokens(tmp_path):
    write_shards(varied_rows(300), tmp_path / "tokens", row_layout(per_shard=70))
    return tmp_path / "tokens"


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        for name, value in vars(other).items():
            assert np.array_equal(getattr(one, name), value) if name.endswith("codes") else getattr(one, name) == value
            assert type(getattr(one, name)) is type(value)


@pytest.mark.parametrize("per_batch", [1, 64, 100, 1024])
def test_rows_are_those_of_the_shards(tokens, monkeypatch, per_batch):
    monkeypatch.setattr(row_store, "ROWS_PER_BATCH", per_batch)
    store = open_tokens(tokens, "train", expected_fingerprint="f")
    rows = list(read_tokens(tokens, "train"))
    assert store.num_rows == 300
    assert_same(store.rows(), rows)
    sizes = [batch.num_rows for batch in store.batches()]
    places = [(b, p) for b, size in enumerate(sizes) for p in range(size)]
    for index in (299, 0, 123):
        assert_same([store.row(*places[index])], [rows[index]])
    assert_same(RowStore.of(rows).rows(), rows)
    assert_same(copy.deepcopy(store).rows(), rows)


def test_texts_are_those_of_the_files(tmp_path):
    file = tmp_path / "texts" / "a.jsonl"
    file.parent.mkdir()
    file.write_text("\n".join(json.dumps({"text": f"il est {i}", "language": "fr"}) for i in range(9)))
    before = open_plain_text(file.parent, "train")
    assert_same(before.rows(), read_plain_text(file))
    assert open_plain_text(file, "train").source == before.source
    assert open_plain_text(file, "test").num_rows == 0
    file.write_text(file.read_text().replace("il est", "elle est"))
    assert next(open_plain_text(file, "train").rows()).text == "elle est 0"
    assert next(before.rows()).text == "il est 0"
    with pytest.raises(DataError, match=r"cannot read text from .*absent\.txt"):
        open_plain_text(tmp_path / "absent.txt", "train")


def test_shards_are_unpacked_once_by_whoever_comes_first(tokens, cache, monkeypatch):
    written, write = [], row_store._write
    monkeypatch.setattr(row_store, "_write", lambda *arguments: (written.append(1), write(*arguments)))
    cache.mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: open_tokens(tokens, "train"), range(4)))
    assert len(written) == len({store.source for store in stores}) == 1
    for shard in tokens.glob("*.parquet"):
        shard.unlink()
    assert open_tokens(tokens, "train").num_rows == 300


def test_other_shards_are_other_rows(tokens, tmp_path):
    write_shards(varied_rows(301), tmp_path / "more", row_layout(per_shard=70))
    assert open_tokens(tokens, "train").num_rows == 300
    assert open_tokens(tmp_path / "more", "train").num_rows == 301
    with pytest.raises(DataError, match="was made with fingerprint f, expected g"):
        open_tokens(tokens, "train", expected_fingerprint="g")
    with pytest.raises(DataError, match="has no split 'dev'; it has train"):
        open_tokens(tokens, "dev")


def test_what_a_kill_or_a_broken_shard_leaves_is_not_taken(tokens, cache, monkeypatch):
    shard = tokens / "train-00003.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:-9])
    with pytest.raises(DataError, match="was changed or cut"):
        open_tokens(tokens, "train")
    assert [path.suffix for path in cache.glob("*") if path.stat().st_size] == [".partial"]
    shard.write_bytes(content)
    assert open_tokens(tokens, "train").num_rows == 300
    assert not list(cache.glob("*.partial"))


def test_codes_that_the_tokenizer_cannot_have_made(tokens):
    manifest = tokens / MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace('"codebook_size": 16', '"codebook_size": 15'))
    with pytest.raises(DataError, match=r"row 'r\d+' from .* has codes from \d+ to 15, expected 0 to 14"):
        open_tokens(tokens, "train")


def test_a_cache_that_cannot_be_written(tokens, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(row_store.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot unpack rows to .*; make room there, or set SPEECHLLM_CACHE to a"):
        open_tokens(tokens, "train")


def test_the_cache_is_that_of_hugging_face_unless_another_is_named(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "cache" / "rows"
    monkeypatch.delenv(row_store.CACHE_VARIABLE)
    monkeypatch.setattr(row_store.constants, "HF_HOME", str(tmp_path / "hf"))
    assert cache_folder() == tmp_path / "hf" / "speechllm" / "rows"


def test_an_empty_store():
    assert RowStore.of([]).num_rows == 0
    assert next(RowStore.of([TokenRow(id="a", split="train", language="en")]).rows()).codes is None
