"""Filters over a corpus: sums are exact, nothing is decided twice, and a killed run ends like an undisturbed one."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from speechllm.audio import Audio, encode_flac, save_audio
from speechllm.cli.main import app
from speechllm.data.filtering import (
    BATCH,
    DECISIONS_FILE,
    REPORT_FILE,
    FilterReport,
    prepare_filtered,
    read_filter_report,
)
from speechllm.data.filters import NOT_JUDGED, make_filters
from speechllm.data.prepare import prepare_corpus, read_corpus
from speechllm.data.records import Record
from speechllm.errors import DataError

NUM = 5 * BATCH + 5
SPECS = ("duration=0.1:0.2", "duplicates", "speakers")


def records(num=NUM):
    """Yield records of which some are too long, some come twice, some leak a speaker, and one cannot be read."""
    for i in range(num):
        length = 4_800 if i % 7 == 3 else 2_000 + 10 * (i % 60)
        audio = encode_flac(Audio(0.1 * np.random.default_rng(i % 60).standard_normal(length), 16_000))
        split = "test" if i % 10 == 9 else "train"
        content = b"broken" if i == 7 else audio
        yield Record(f"r{i:03d}", split, "en", f"text {i % 60}", content, speaker=f"s{i % 23}" if i % 11 else "")


class Odd:
    """Drops every fifth record, cannot judge every fourth, and counts what it was asked."""

    spec = "odd=1"

    def __init__(self, die_at=None):
        self.asked, self.die_at = [], die_at

    def reasons(self, records):
        if self.die_at is not None and len(self.asked) >= self.die_at:
            raise KeyboardInterrupt
        self.asked += [record.id for record in records]
        numbers = [int(record.id[1:]) for record in records]
        return ["a fifth" if n % 5 == 0 else NOT_JUDGED if n % 4 == 0 else None for n in numbers]


def run(folder, *more, source=records):
    return prepare_filtered(source, folder, [*make_filters(SPECS), *more], records_per_shard=8)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_sums_are_exact_and_what_was_kept_is_stored(tmp_path):
    corpus, report = run(tmp_path, Odd())
    assert report.seen == NUM
    assert report.seen == report.kept + sum(part.count for part in report.dropped)
    assert report.kept == report.stored + report.unusable
    assert (report.stored, report.unusable) == (sum(corpus.num_records.values()), len(corpus.failures))
    assert [part.spec for part in report.dropped] == [*SPECS, "odd=1"]
    assert all(part.count > 0 for part in report.dropped)
    assert report.dropped[0].count == sum(i % 7 == 3 for i in range(NUM))
    assert report.dropped[0].examples[0] == ("r003", "en audio lasts 0.3 s, expected 0.1 to 0.2 s")
    assert len(report.dropped[0].examples) == 5
    assert [failure.id for failure in corpus.failures] == ["r007"]
    assert read_filter_report(tmp_path) == report
    assert f"{NUM} seen = {report.kept} kept + " in str(report)
    decided = [json.loads(line) for line in (tmp_path / DECISIONS_FILE).read_text().splitlines()]
    assert decided[0]["filters"] == [*SPECS, "odd=1"]
    assert decided[-1] == {"end": NUM}
    kept = {line[0] for line in decided[1:-1] if len(line) == 2 or line[2] is None}
    assert kept - {failure.id for failure in corpus.failures} == {record.id for record in read_corpus(tmp_path)}


def test_filters_see_what_the_ones_before_them_kept_in_batches_of_the_source(tmp_path):
    odd = Odd()
    _, report = run(tmp_path, odd)
    dropped_before = sum(part.count for part in report.dropped[:-1])
    assert len(odd.asked) == NUM - dropped_before
    not_judged = [id for id in odd.asked if int(id[1:]) % 4 == 0 and int(id[1:]) % 5]
    assert report.dropped[-1].num_not_judged == len(not_judged) > 0


def test_no_speaker_and_no_content_is_left_on_both_sides(tmp_path):
    run(tmp_path)
    split = {name: list(read_corpus(tmp_path, name)) for name in ("train", "test")}
    speakers = {name: {r.speaker for r in found} - {""} for name, found in split.items()}
    assert not speakers["train"] & speakers["test"]
    everything = [(r.text, r.audio) for found in split.values() for r in found]
    assert len(everything) == len(set(everything))


@pytest.mark.parametrize("die_at", [1, 20, 35])
def test_a_stopped_run_goes_on_and_decides_nothing_twice(tmp_path, die_at):
    _, whole = run(tmp_path / "whole", Odd())
    dying = Odd(die_at)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", dying)
    # What a killed run leaves of a line, and of a batch.
    with (tmp_path / "parts" / DECISIONS_FILE).open("a") as file:
        file.write('["r070", "aaaa"]\n["r07')
    again = Odd()
    _, report = run(tmp_path / "parts", again)
    assert report == whole
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert not set(dying.asked) & set(again.asked)


def test_a_finished_folder_asks_no_filter_again(tmp_path):
    _, first = run(tmp_path, Odd())
    before = contents(tmp_path)
    surveyed = []

    def counted():
        surveyed.append(1)
        return records()

    _, second = run(tmp_path, Odd(die_at=0), source=counted)
    assert second == first
    assert contents(tmp_path) == before
    assert len(surveyed) == 1


@pytest.mark.parametrize("num", [0, 1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH])
def test_any_number_of_records_ends_well(tmp_path, num):
    for _ in range(2):
        _, report = run(tmp_path, source=lambda: records(num))
        assert report.seen == num


def test_other_filters_or_records_are_refused(tmp_path):
    run(tmp_path / "a")
    with pytest.raises(DataError, match="was begun with other filters"):
        prepare_filtered(records, tmp_path / "a", make_filters(["duplicates"]), records_per_shard=8)
    with pytest.raises(DataError, match=r"was begun with other records \(at 'r084'\)"):
        run(tmp_path / "a", source=lambda: records(NUM - 1))
    with pytest.raises(DataError, match=r"was begun with other records \(at 'r085'\)"):
        run(tmp_path / "a", source=lambda: records(NUM + 1))
    prepare_corpus(records(), tmp_path / "b")
    with pytest.raises(DataError, match="was begun without filters"):
        run(tmp_path / "b")
    (tmp_path / "a" / REPORT_FILE).write_text("{}")
    with pytest.raises(DataError, match="is no report of filters"):
        read_filter_report(tmp_path / "a")


def test_an_empty_report_says_so():
    assert str(FilterReport()) == "0 seen = 0 kept + 0 dropped (no filters); 0 kept = 0 stored + 0 unusable"


def test_the_command_line_filters(tmp_path):
    lengths = (0.3, 0.6, 0.6, 4.0)
    for i, seconds in enumerate(lengths):
        samples = 0.1 * np.random.default_rng(int(10 * seconds)).standard_normal(int(16_000 * seconds))
        save_audio(Audio(samples, 16_000), tmp_path / f"{i}.wav")
    rows = "".join(f"{i}.wav,bonjour\n" for i in range(4))
    (tmp_path / "clips.csv").write_text("audio,text\n" + rows)
    table = ["prepare", "table", str(tmp_path / "out"), f"table={tmp_path / 'clips.csv'}", "language=fr"]
    command = [*table, "--filter", "duration=0.5:3", "--filter", "duplicates"]
    for _ in range(2):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        said = " ".join(result.stderr.split())
        assert "4 seen = 1 kept + 3 dropped (duration=0.5:3 2, duplicates 1); 1 kept = 1 stored + 0 unusable" in said
    assert [record.id for record in read_corpus(tmp_path / "out")] == ["0000002"]
    wrong = CliRunner().invoke(app, [*table, "--filter", "duratoin=1:2"])
    assert wrong.exit_code == 2
    assert "did you mean 'duration'" in wrong.stderr
