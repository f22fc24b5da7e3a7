"""What a checkpoint was not trained for is refused on every way in, in one line, unless the user wants it anyway."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from transformers import pipeline
from typer.testing import CliRunner

from speechllm.audio import save_audio
from speechllm.cli.main import app
from speechllm.demo.actions import Demo
from speechllm.demo.offers import SPEECH_TASKS, TEXT_TASKS, Offers
from speechllm.errors import CheckpointError, UntrainedError
from speechllm.generation.decoding_config import CandidatesConfig, DecodingConfig
from speechllm.hub import describe_checkpoint, load_checkpoint, save_checkpoint
from speechllm.pipelines.streaming_text import stream_text
from speechllm.pipelines.system import LENGTH_SLACK, SpeechSystem
from speechllm.tasks import TaskTag, TrainedFor
from tests.support.tiny import tiny_checkpoint, tiny_speech

SHORT = DecodingConfig(max_text_tokens=6, max_audio_seconds=0.8)
TRAINED = TrainedFor(
    tasks={
        "ASR": ("en", "fr"), "ASR AST": ("en-fr",), "AST S2ST": ("en-fr",), "MT": ("en-de", "en-fr"), "TTS": ("fr",),
    },
    longest_seconds=3.0,
)  # fmt: skip
AUDIO = tiny_speech(0.8)
PIPELINES = {
    "automatic-speech-recognition": (AUDIO, {"language": "de"}, {"language": "fr"}),
    "translation": ("good morning", {"src_lang": "fr", "tgt_lang": "en"}, {"src_lang": "en", "tgt_lang": "de"}),
    "speech-translation": (AUDIO, {"src_lang": "en", "tgt_lang": "de"}, {"src_lang": "en", "tgt_lang": "fr"}),
    "speech-to-speech-translation": (AUDIO, {"src_lang": "fr", "tgt_lang": "en"}, {"src_lang": "en", "tgt_lang": "fr"}),
    "text-to-speech": ("good morning", {"language": "en"}, {"language": "fr"}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("untrained") / "checkpoint", acoustic=True, trained=TRAINED)


@pytest.fixture(scope="module")
def system(folder: Path) -> SpeechSystem:
    return SpeechSystem.from_pretrained(folder, decoding=SHORT)


def test_speech_is_one_piece_up_to_a_little_more_than_in_training(system: SpeechSystem):
    assert system.longest_piece_seconds == LENGTH_SLACK * 3.0
    short, long = system.encode([tiny_speech(seconds) for seconds in (3.7, 3.8)])
    assert [len(short.pieces), len(long.pieces)] == [1, 2]
    (whole,) = system.encode([tiny_speech(3.8)], piece_seconds=4.0)
    assert len(whole.pieces) == 1


def test_the_record_goes_with_the_checkpoint(folder: Path, tmp_path: Path):
    checkpoint = load_checkpoint(folder)
    assert checkpoint.trained == TRAINED
    lines = describe_checkpoint(folder)
    assert lines["trained for"].startswith("ASR (en, fr), ASR AST (en-fr)")
    assert lines["longest speech"] == "3.0 s"
    pipe = pipeline("translation", model=str(folder), device="cpu")
    pipe.save_pretrained(tmp_path / "again")
    assert load_checkpoint(tmp_path / "again").trained == TRAINED


def test_older_checkpoints_do_what_they_are_asked(folder: Path, tmp_path: Path):
    checkpoint = load_checkpoint(folder)
    old = save_checkpoint(tmp_path / "old", checkpoint.model, checkpoint.processor)
    manifest = json.loads((old / "speechllm.json").read_text())
    (old / "speechllm.json").write_text(json.dumps({**manifest, "format_version": 1}))
    assert load_checkpoint(old).trained is None
    assert describe_checkpoint(old)["trained for"] == "not recorded"
    assert len(SpeechSystem.from_pretrained(old, decoding=SHORT).transcribe([AUDIO], language="de")) == 1
    (old / "speechllm.json").write_text(json.dumps({**manifest, "trained_for": {"tasks": 1}}))
    with pytest.raises(CheckpointError, match="what it was trained for is broken"):
        load_checkpoint(old)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.transcribe([AUDIO], language="de"),
        lambda s: s.translate([AUDIO], source="fr", target="en"),
        lambda s: s.translate(["bonjour"], source="fr", target="en", text=True),
        lambda s: s.translate(["hello"], source="en", target="de", text=True, speech=True),
        lambda s: s.speak(["hello"], language="en"),
        lambda s: s.run("[S2ST English French]", [AUDIO]),
        lambda s: next(stream_text(s, TaskTag.of("ASR", "de"), AUDIO)),
    ],
)
def test_the_system_refuses_and_can_be_told_not_to(system: SpeechSystem, call):
    with pytest.raises(
        UntrainedError, match=r"^this checkpoint was not trained for \[.*allow_untrained=True \(--allow"
    ):
        call(system)
    call(SpeechSystem(system.checkpoint, decoding=SHORT, allow_untrained=True))


def test_what_was_trained_is_as_before(system: SpeechSystem):
    free = SpeechSystem(dataclasses.replace(system.checkpoint, trained=None), decoding=SHORT)
    for tag, given in (("[ASR French]", AUDIO), ("[MT English German]", "hello"), ("[TTS French]", "bonjour")):
        (ours,), (theirs,) = system.run(tag, [given]), free.run(tag, [given])
        assert ours.segments == theirs.segments


def test_of_several_ways_the_first_trained_one_is_taken(system: SpeechSystem):
    (written,) = system.translate([AUDIO], source="en", target="fr")
    assert str(written.tag) == "[ASR AST English French]"
    (spoken,) = system.translate([AUDIO], source="en", target="fr", speech=True)
    assert str(spoken.tag) == "[AST S2ST English French]"
    assert spoken.audio is not None
    free = SpeechSystem(system.checkpoint, decoding=SHORT, allow_untrained=True)
    assert str(free.translate([AUDIO], source="en", target="fr")[0].tag) == "[AST English French]"


def test_who_cannot_hear_does_not_choose_by_ear(system: SpeechSystem):
    several = dataclasses.replace(SHORT, candidates=CandidatesConfig(count=3))
    trained = TrainedFor(tasks={"TTS": ("en", "fr"), "ASR": ("en",)})
    half = SpeechSystem(dataclasses.replace(system.checkpoint, trained=trained), decoding=SHORT)
    for language, same in (("en", False), ("fr", True)):
        (best,), (greedy,) = (half.speak(["no"], language=language, decoding=d) for d in (several, SHORT))
        assert (best.segments == greedy.segments) is same


@pytest.mark.parametrize("task", PIPELINES)
def test_pipelines(folder: Path, task: str):
    given, untrained, trained = PIPELINES[task]
    pipe, free = (
        pipeline(task, model=str(folder), device="cpu", max_new_tokens=4, **options)
        for options in ({}, {"allow_untrained": True})
    )
    pipe.system.decoding = free.system.decoding = SHORT
    for stream in ({}, {"stream": True}):
        with pytest.raises(UntrainedError, match="was not trained for"):
            pipe(given, **untrained, **stream)
    assert pipe(given, **trained).keys() == free(given, **untrained).keys() - (
        {"transcript"} if task == "speech-to-speech-translation" else set()
    ), "it knows a chain without transcript alone"


def test_the_command_line(folder: Path, tmp_path: Path):
    wav = save_audio(AUDIO, tmp_path / "hello.wav")
    command = ["transcribe", str(wav), "--language", "German", "--model", str(folder)]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert re.fullmatch(
        r"error: this checkpoint was not trained for \[ASR German\]: its ASR knows en, fr; to try anyway, .*\n",
        refused.stderr,
    )
    assert CliRunner().invoke(app, [*command, "--allow-untrained"]).exit_code == 0
    shown = CliRunner().invoke(app, ["info", str(folder)]).stdout
    assert re.search(r"^trained for +ASR \(en, fr\), ", shown, flags=re.MULTILINE)


def test_the_demo_offers_what_was_trained(system: SpeechSystem):
    demo = Demo(system)
    assert demo.offers.tasks(SPEECH_TASKS) == ["transcribe", "translate", "translate and speak"]
    assert demo.offers.tasks(TEXT_TASKS) == ["speak", "translate", "translate and speak"]
    assert demo.offers.sources(SPEECH_TASKS["transcribe"]) == ["en", "fr"]
    assert demo.offers.targets(SPEECH_TASKS["transcribe"], "en") == []
    assert demo.offers.targets(TEXT_TASKS["translate"], "en") == ["de", "fr"]
    assert demo.offers.targets(TEXT_TASKS["translate and speak"], "en") == ["fr"], "German it does not speak"
    mute = Offers(TRAINED, can_speak=False)
    assert mute.tasks(SPEECH_TASKS) == ["transcribe", "translate"]
    everything = Offers(None, can_speak=True)
    assert everything.tasks(SPEECH_TASKS) == list(SPEECH_TASKS)
    assert "sw" in everything.targets(TEXT_TASKS["translate"], "en")
    for known in (SPEECH_TASKS, TEXT_TASKS):
        for task in demo.offers.tasks(known):
            for source in demo.offers.sources(known[task]):
                for target in demo.offers.targets(known[task], source) or [None]:
                    for ways, code in zip(known[task], (source, target), strict=False):
                        system.trained_tag(ways, code or source, target)
    with pytest.raises(UntrainedError):
        demo.text("hello", "speak", "en", "fr")
