"""Shards: what is written comes back, in any number of interrupted runs, and nothing else is accepted."""

import json
import os
import resource
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechllm.data import shards
from speechllm.data.shards import Converted, Failure, ShardLayout, read_manifest, read_shards, write_shards
from speechllm.errors import DataError

SCHEMA = pa.schema([("name", pa.string()), ("value", pa.int64())])


class KilledError(Exception):
    """Stands for kill -9 where a test needs many of them; a real one is in tests/integration."""


def layout(items_per_shard=3, fingerprint="f", seen=None, kind="numbers"):
    def convert(items):
        if seen is not None:
            seen.extend(items)
        rows = [{"name": split, "value": value} for split, value in items if value >= 0]
        failures = tuple(Failure(str(value), "negative") for _, value in items if value < 0)
        return Converted(rows, {"en": float(len(rows))}, failures)

    return ShardLayout(
        kind=kind,
        schema=SCHEMA,
        fingerprint=fingerprint,
        items_per_shard=items_per_shard,
        details={"colour": "red"},
        split_of=lambda item: item[0],
        key_of=str,
        convert=convert,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def source(counts):
    """Items of two splits, interleaved."""
    longest = max(counts.values(), default=0)
    return [(split, i) for i in range(longest) for split, count in counts.items() if i < count]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(train=st.integers(0, 11), test=st.integers(0, 7), per_shard=st.integers(1, 5))
def test_rows_come_back_in_order_by_split(tmp_path_factory, train, test, per_shard):
    folder = tmp_path_factory.mktemp("shards")
    items = source({"train": train, "test": test})
    manifest = write_shards(items, folder, layout(per_shard))
    assert manifest == read_manifest(folder, "numbers")
    for split, count in (("train", train), ("test", test)):
        if count:
            assert [row["value"] for row in read_shards(folder, manifest, split)] == list(range(count))
    assert len(list(read_shards(folder, manifest))) == train + test


@pytest.mark.parametrize("stop", range(14))
def test_a_run_stopped_anywhere_and_continued_ends_with_the_same_bytes(tmp_path, stop):
    items = source({"train": 8, "test": 4})
    write_shards(items, tmp_path / "whole", layout())

    def stopping():
        for i, item in enumerate(items):
            if i == stop:
                raise KilledError
            yield item
        if stop == 13:
            raise KilledError

    if stop != 12:
        with pytest.raises(KilledError):
            write_shards(stopping(), tmp_path / "parts", layout())
        with pytest.raises(DataError, match=r"is not finished|has no manifest"):
            read_manifest(tmp_path / "parts", "numbers")
    write_shards(items, tmp_path / "parts", layout())
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_finished_shards_are_not_made_again(tmp_path):
    items = source({"train": 8})
    converted = []

    def stopping():
        yield from items[:7]
        raise KilledError

    with pytest.raises(KilledError):
        write_shards(stopping(), tmp_path, layout(seen=converted))
    assert converted == items[:6]
    converted.clear()
    write_shards(items, tmp_path, layout(seen=converted))
    assert converted == items[6:]
    converted.clear()
    write_shards(items, tmp_path, layout(seen=converted))
    assert converted == []


def test_leftovers_of_a_kill_within_a_write_do_no_harm(tmp_path):
    items = source({"train": 8})
    write_shards(items, tmp_path / "whole", layout())
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / ".train-00001.parquet.partial").write_bytes(b"half")
    (tmp_path / "parts" / ".manifest.json.partial").write_bytes(b"{")
    # A shard that was renamed into place when the kill came, before the manifest named it.
    (tmp_path / "parts" / "train-00000.parquet").write_bytes(b"PAR1")
    write_shards(items, tmp_path / "parts", layout())
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_failures_are_counted_and_named(tmp_path):
    items = [("train", value) for value in (0, -1, 2, -3, 4)]
    manifest = write_shards(items, tmp_path, layout())
    assert manifest.failures == (Failure("-1", "negative"), Failure("-3", "negative"))
    assert manifest.num_rows == {"train": 3}
    assert manifest.duration_seconds == {"en": 3.0}


def test_progress_counts_every_item(tmp_path):
    calls = []
    write_shards(source({"train": 8, "test": 1}), tmp_path, layout(), calls.append)
    assert calls == [3, 6, 8, 9]


@pytest.mark.parametrize("change", ["changed", "cut", "removed"])
def test_a_broken_shard_is_refused_by_name(tmp_path, change):
    manifest = write_shards(source({"train": 4}), tmp_path, layout())
    path = tmp_path / "train-00001.parquet"
    content = bytearray(path.read_bytes())
    if change == "removed":
        path.unlink()
    else:
        content[20] ^= 1
        path.write_bytes(content if change == "changed" else content[:-5])
    with pytest.raises(DataError, match=r"train-00001\.parquet") as error:
        list(read_shards(tmp_path, manifest, "train"))
    if change != "removed":
        assert manifest.shards[1].sha256 in str(error.value)


def test_reading_is_lazy(tmp_path):
    manifest = write_shards(source({"train": 9}), tmp_path, layout())
    (tmp_path / "train-00002.parquet").unlink()
    rows = read_shards(tmp_path, manifest, "train")
    assert [next(rows)["value"] for _ in range(6)] == list(range(6))


def test_another_fingerprint_kind_or_split_is_refused(tmp_path):
    manifest = write_shards(source({"train": 4}), tmp_path, layout())
    with pytest.raises(DataError, match="fingerprint f, expected g"):
        read_manifest(tmp_path, "numbers", "g")
    with pytest.raises(DataError, match="holds numbers, expected letters"):
        read_manifest(tmp_path, "letters")
    with pytest.raises(DataError, match="no split 'trian'; it has train"):
        next(read_shards(tmp_path, manifest, "trian"))
    with pytest.raises(DataError, match=r"no manifest\.json"):
        read_manifest(tmp_path / "nothing", "numbers")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fingerprint": "g"}, "begun with fingerprint f, this run has g"),
        ({"items_per_shard": 2}, "items_per_shard 3, this run has 2"),
        ({"kind": "letters"}, "kind numbers, this run has letters"),
    ],
)
def test_a_folder_is_not_continued_with_other_settings(tmp_path, changed, message):
    write_shards(source({"train": 4}), tmp_path, layout())
    with pytest.raises(DataError, match=message):
        write_shards(source({"train": 4}), tmp_path, layout(**changed))


@pytest.mark.parametrize(
    ("counts", "message"),
    [({"train": 5}, "other records"), ({"train": 9}, "does not hold all"), ({"train": 3}, "not there any more")],
)
def test_a_folder_is_not_continued_from_another_source(tmp_path, counts, message):
    write_shards(source({"train": 6 if counts["train"] == 9 else 4}), tmp_path, layout())
    before = contents(tmp_path)
    with pytest.raises(DataError, match=message):
        write_shards(source(counts), tmp_path, layout())
    assert contents(tmp_path) == before


def test_an_unfinished_folder_is_not_read(tmp_path):
    def stopping():
        yield from source({"train": 4})
        raise KilledError

    with pytest.raises(KilledError):
        write_shards(stopping(), tmp_path, layout())
    with pytest.raises(DataError, match=r"not finished \(1 shards\); run the same command again"):
        read_manifest(tmp_path, "numbers")


@pytest.mark.parametrize("content", ["{", "[]", '{"format_version": 99}', '{"format_version": 1, "shards": [{}]}'])
def test_a_broken_manifest_is_one_clear_error(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json"):
        read_manifest(tmp_path, "numbers")


def test_a_folder_that_cannot_be_made_is_one_clear_error():
    with pytest.raises(DataError, match="cannot write /proc/shards") as error:
        write_shards(source({"train": 4}), "/proc/shards", layout())
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_one_clear_error(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(DataError, match="Permission denied"):
        write_shards(source({"train": 4}), tmp_path, layout())


FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, {here!r})
from test_shards import layout, source
from speechllm.data.shards import write_shards
from speechllm.errors import DataError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    write_shards(source({{"train": 40}}), {folder!r}, layout(items_per_shard=8))
except DataError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_leaves_whole_files_and_can_be_continued(tmp_path):
    # The kernel refuses to let files grow past a limit: an error from the same write() that a full disk gives.
    write_shards(source({"train": 40}), tmp_path / "whole", layout(items_per_shard=8))
    limit = max(path.stat().st_size for path in (tmp_path / "whole").glob("*.parquet")) + 100
    code = FULL_DISK.format(here=str(__file__).rsplit("/", 1)[0], limit=limit, folder=str(tmp_path / "parts"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list((tmp_path / "parts").glob(".*.partial"))
    if (tmp_path / "parts" / "manifest.json").exists():
        json.loads((tmp_path / "parts" / "manifest.json").read_text())
    write_shards(source({"train": 40}), tmp_path / "parts", layout(items_per_shard=8))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_many_shards_do_not_mean_as_many_manifests(tmp_path, monkeypatch):
    saved = []
    keep = shards.ShardWriter._save
    monkeypatch.setattr(shards, "SAVES_PER_MANIFEST", 4)
    monkeypatch.setattr(shards.ShardWriter, "_save", lambda self, complete: saved.append(1) or keep(self, complete))
    items = source({"train": 60})
    manifest = write_shards(items, tmp_path / "few", layout())
    assert len(manifest.shards) == 20
    assert len(saved) < 15
    monkeypatch.setattr(shards, "SAVES_PER_MANIFEST", 1000)
    saved.clear()
    write_shards(items, tmp_path / "many", layout())
    assert len(saved) == 21
    assert contents(tmp_path / "few") == contents(tmp_path / "many")


def test_shards_keep_their_order_in_any_order_and_beyond_five_digits(tmp_path):
    names = [shards.shard_name(split, i) for split in ("train", "test") for i in (0, 99_999, 100_000)]
    writer = shards.ShardWriter(tmp_path, layout(), splits=["train", "test"])
    for name in reversed(names):
        writer.add(shards.make_shard([("train", 1)], name, name.partition("-")[0], layout()))
    assert [shard.file for shard in writer.close().shards] == names
