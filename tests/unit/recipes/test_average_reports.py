"""One table from several reports: a score that is missing counts nowhere, and every mean says of how many it is."""

import dataclasses

import pytest

from recipes.average_reports import average_table, main, scores_of
from speechllm.errors import DataError
from speechllm.evaluation.report import write_report
from tests.support.tiny_report import WER, tiny_report


def report(folder, *values):
    """Write a report whose model has a word error rate of each value, in a split of its own."""
    tiny = tiny_report()
    first, *others = tiny.measurements
    scored = [
        dataclasses.replace(first, split=f"s{i}", score=dataclasses.replace(WER, value=value))
        for i, value in enumerate(values)
    ]
    write_report(dataclasses.replace(tiny, measurements=[*scored, *others]), folder)
    return folder


def test_means_are_of_the_scores_that_there_are(tmp_path):
    values = {"de": (10.0, 20.0), "fr": (40.0,), "it": ()}
    folders = [report(tmp_path / name, *scores) for name, scores in values.items()]
    assert scores_of(folders[0]) == {"[ASR] transcript WER": 15.0}
    assert average_table(folders).splitlines() == [
        "| corpus | [ASR] transcript WER |",
        "|---|---:|",
        "| de | 15.0 |",
        "| fr | 40.0 |",
        "| it | - |",
        "| mean | 27.5 (of 2) |",
    ]


def test_the_command_prints_the_table(tmp_path, capsys):
    main([report(tmp_path / "fr", 12.345)])
    assert "| mean | 12.3 (of 1) |" in capsys.readouterr().out
    with pytest.raises(DataError, match="is no evaluation report"):
        average_table([tmp_path / "absent"])
