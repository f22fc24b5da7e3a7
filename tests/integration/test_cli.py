"""The command line: what works, and one line for each mistake."""

import json

import pytest
from typer.testing import CliRunner

from recipes.quickstart.config import CONFIG as QUICKSTART
from speechllm.audio import Audio, encode_flac, save_audio
from speechllm.cli.main import app
from tests.support.tiny import tiny_checkpoint, tiny_speech


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("cli") / "checkpoint")


@pytest.fixture
def recording(tmp_path):
    return save_audio(Audio(tiny_speech().samples, 16_000), tmp_path / "hello.wav")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_transcribe_prints_one_json_object_a_file(checkpoint, recording):
    result = run("transcribe", recording, recording, "--model", checkpoint, "--json")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["input"] for row in rows] == [str(recording)] * 2
    assert rows[0]["text"] == rows[1]["text"]


def test_info_names_the_parts(checkpoint):
    result = run("info", checkpoint)
    assert result.exit_code == 0, result.output
    assert "semantic" in result.stdout


def test_convert_and_resynthesize_write_what_they_say(tmp_path):
    speaking = tiny_checkpoint(tmp_path / "speaking", acoustic=True)
    names = [str(save_audio(tiny_speech(1.0, seed=i), tmp_path / f"{i}.wav")) for i in range(2)]
    out = tmp_path / "converted.wav"
    command = ("convert", names[0], "--voice", names[1], "--out", out, "--model", speaking)
    refused = run(*command)
    assert refused.exit_code == 2
    assert "--consent" in refused.stderr
    assert not out.exists()
    assert run(*command, "--consent").exit_code == 0
    assert out.exists()
    result = run("resynthesize", *names, "--no-judge", "--json", "--out", tmp_path / "heard", "--model", speaking)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["stage"] for row in rows] == ["original", "codec copy", "semantic codes"]
    assert {score["name"] for score in rows[2]["scores"]} >= {"log-mel distance"}
    assert {path.name for path in (tmp_path / "heard").iterdir()} == {
        f"{i}-{stage}.wav" for i in range(2) for stage in ("original", "codec-copy", "semantic-codes")
    }


@pytest.mark.parametrize("folder", ["[runs/corpus]", "a[/1]b", ":100:"])
def test_text_that_looks_like_markup_is_printed_as_it_is(checkpoint, tmp_path, folder):
    path = tmp_path / folder / "hello.wav"
    refused = run("transcribe", path, "--model", checkpoint)
    assert refused.exit_code == 2
    assert str(path) in refused.stderr
    path.parent.mkdir(parents=True)
    save_audio(Audio(tiny_speech().samples, 16_000), path)
    for options in ((), ("--json",)):
        result = run("transcribe", path, path, "--model", checkpoint, *options)
        assert result.exit_code == 0, result.output
        assert result.stdout.count(str(path)) == 2


def test_recordings_of_one_name_are_refused_before_they_overwrite_each_other(tmp_path, tmp_path_factory):
    names = [save_audio(tiny_speech(0.5), path / "x.wav") for path in (tmp_path, tmp_path_factory.mktemp("b"))]
    result = run("resynthesize", *names, "--no-judge", "--out", tmp_path / "heard")
    assert result.exit_code == 2
    assert "same name" in result.stderr


def empty(folder):
    (folder / "bad.wav").write_bytes(b"")
    return folder / "bad.wav"


def cut(folder):
    audio = tiny_speech()
    content = encode_flac(audio)
    (folder / "bad.flac").write_bytes(content[: len(content) // 2])
    return folder / "bad.flac"


def no_audio(folder):
    (folder / "bad.wav").write_text("hello")
    return folder / "bad.wav"


@pytest.mark.parametrize("bad", [empty, cut, no_audio], ids=["empty", "cut short", "no audio"])
def test_a_bad_file_gets_one_line(checkpoint, tmp_path, bad):
    path = bad(tmp_path)
    result = run("transcribe", path, "--model", checkpoint)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {path}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("transcribe", "{recording}", "--model", "{checkpoint}", "--language", "klingon"),
            "unknown language 'klingon'",
        ),
        (("transcribe", "{recording}", "--model", "{folder}"), "no speechllm checkpoint"),
        (("prepare", "picco", "{folder}/out"), "did you mean 'pico'?"),
        (("prepare", "pico", "{folder}/out", "num_sentence=3"), "did you mean 'num_sentences'?"),
        (("train", "unifid", "{folder}/config.yaml"), "did you mean 'unified'?"),
        (("quickstart", "--out", "{folder}/q", "trainnig.max_steps=3"), "did you mean 'training'?"),
        (("train", "quickstart", str(QUICKSTART), "trainnig.max_steps=3"), "did you mean 'training'?"),
        (("resynthesize", "{recording}", "--no-judge", "--model", "{checkpoint}"), "cannot make sound"),
        (("resynthesize", "{recording}", "--no-judge", "-l", "klingon"), "unknown language 'klingon'"),
        (("train", "codec", "{folder}/nothing.yaml"), "nothing.yaml"),
        (("speak", "hello", "--out", "{folder}/x.wav", "--model", "{checkpoint}"), "cannot make sound"),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(checkpoint, recording, tmp_path, arguments, message):
    folder = tmp_path / "work"
    folder.mkdir()
    result = run(*(a.format(recording=recording, checkpoint=checkpoint, folder=folder) for a in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(folder.iterdir())
