import dataclasses
import json

import pytest

from speechllm.audio import Audio
from speechllm.errors import ConfigError
from speechllm.evaluation import EvaluationConfig, Judges, evaluate_checkpoint, read_report_json, write_report
from speechllm.evaluation.results import CODEC_COPY, MODEL, ORIGINAL, OTHERS, RESYNTHESIS, SHUFFLED
from speechllm.metrics import BootstrapConfig
from tests.support.toy_speech import WORDS, ToyJudge, ToySystem, number_of, tone

CONFIG = EvaluationConfig(
    splits=("test",), speaker_embedder="none", bootstrap=BootstrapConfig(num_resamples=20), num_samples=1
)
WITH_VOICES = dataclasses.replace(CONFIG, speaker_embedder="mel-pitch")


@pytest.fixture(scope="module")
def report(corpus):
    judges = Judges(ToyJudge("en"), ToyJudge("fr"))
    return evaluate_checkpoint(
        ToySystem(), corpus, WITH_VOICES, judges=judges, histories={"lm": [{"step": 1, "loss": 2.0}]}
    )


def value(report, **what):
    found = report.find(**what)
    assert len(found) == 1, f"{len(found)} measurements fit {what}"
    return found[0].score.value


def test_every_task_in_every_direction_is_measured(report):
    done = {(m.task, m.direction) for m in report.measurements}
    one, two = {"en", "fr"}, {"en-fr", "fr-en"}
    expected = {(task, d) for task in ("ASR", "TTS") for d in one}
    expected |= {(task, d) for task in ("AST", "MT", "S2ST", "ASR AST S2ST") for d in two}
    assert done == expected


def test_text_scores_by_hand(report):
    # English: sentences 0 to 5 and, as target sides, 0 to 2 once more; the odd ones lose their last word
    lengths = [3, 3, 3, 3, 4, 4, 3, 3, 3]
    lost = 1 + 1 + 1 + 1
    assert value(report, task="ASR", direction="en", system=MODEL, name="WER") == pytest.approx(
        100 * lost / sum(lengths)
    )
    assert value(report, task="MT", direction="en-fr", system=MODEL, name="BLEU") < 100


def test_ceilings_are_perfect_here_and_the_floor_is_not(report):
    for system in (ORIGINAL, CODEC_COPY, RESYNTHESIS):
        assert value(report, task="TTS", direction="fr", system=system, name="CER") == 0
        assert value(report, task="S2ST", direction="en-fr", system=system, name="CER") == 0
    assert value(report, task="ASR", direction="en", system=ORIGINAL, name="WER") == 0
    assert value(report, task="ASR", direction="en", system=SHUFFLED, name="WER") > 80


def test_silence_is_scored_as_an_answer_and_not_left_out(report):
    found = report.find(task="TTS", direction="en", system=MODEL, name="WER")[0].score
    assert (found.num_scored, found.num_failed) == (9, 0)
    spoken, silent = 3 + 3 + 4 + 3 + 3, 3 + 3 + 4 + 3
    assert found.value == pytest.approx(100 * silent / (spoken + silent))


class BlipSystem(ToySystem):
    """Where others are silent, says 80 ms of something."""

    def _one(self, tag, source):
        output = super()._one(tag, source)
        if "audio" in tag.output_modalities and output.audio is None:
            output.audio = Audio(tone("en", 0).samples[: 16_000 * 80 // 1000], 16_000)
        return output


def test_sound_in_which_nothing_can_be_heard_is_scored_like_silence(report, corpus, judges):
    blips = evaluate_checkpoint(BlipSystem(), corpus, CONFIG, judges=judges)
    for task, direction in (("TTS", "en"), ("S2ST", "en-fr")):
        what = {"task": task, "direction": direction, "system": MODEL, "name": "CER"}
        found, silent = blips.find(**what)[0].score, report.find(**what)[0].score
        assert found.num_failed == 0
        assert found == silent


class RecordingSystem(ToySystem):
    """Keeps the voices that speech was made with, by text, and by semantic code."""

    def __init__(self):
        super().__init__()
        self.spoken: set[tuple] = set()
        self.resynthesised: set[tuple] = set()
        self.num_syntheses = 0

    def run(self, tag, inputs, *, voice=None, **options):
        if "audio" in tag.output_modalities:
            numbers = [WORDS["en"].index(i) if isinstance(i, str) else number_of(i) for i in inputs]
            self.spoken |= set(zip(numbers, voice or [None] * len(inputs), strict=True))
        return super().run(tag, inputs, voice=voice, **options)

    def synthesize(self, codes, *, voice=None, seed=0):
        self.num_syntheses += 1
        voices = voice or [None] * len(codes)
        self.resynthesised |= {(int(c[0]), v) for c, v in zip(codes, voices, strict=True)}
        return super().synthesize(codes, voice=voice, seed=seed)


@pytest.mark.parametrize("task", ["TTS", "S2ST"])
@pytest.mark.parametrize("use_voice_prompts", [True, False])
def test_resynthesis_speaks_with_the_voices_of_the_model_in_one_batch(task, use_voice_prompts, corpus, judges):
    system = RecordingSystem()
    direction = "en" if task == "TTS" else "fr-en"
    config = dataclasses.replace(CONFIG, tasks=(task,), directions=(direction,), use_voice_prompts=use_voice_prompts)
    report = evaluate_checkpoint(system, corpus, config, judges=judges)
    assert value(report, task=task, direction=direction, system=RESYNTHESIS, name="CER") == 0
    assert system.resynthesised == system.spoken
    assert {voice is None for _, voice in system.spoken} == {not use_voice_prompts}
    assert system.num_syntheses == 1


def test_speaker_similarity_has_floor_and_ceiling_and_counts_silence_as_failed(report):
    for task in ("TTS", "S2ST"):
        direction = "en" if task == "TTS" else "en-fr"
        found = {m.system: m.score for m in report.find(task=task, direction=direction, name="mel-pitch similarity")}
        assert set(found) == {MODEL, CODEC_COPY, OTHERS}
        assert found[MODEL].num_failed == 4
        assert all(s.value is not None for s in found.values())


class HalfSystem(ToySystem):
    """Was trained for recognition alone."""

    def knows(self, tag):
        return tag.name == "ASR"


def test_what_was_not_trained_is_not_measured_and_named(corpus, judges):
    report = evaluate_checkpoint(HalfSystem(), corpus, CONFIG, judges=judges)
    assert {m.task for m in report.measurements} == {"ASR"}
    assert sum("[TTS English]: not measured, the checkpoint was not trained" in line for line in report.limits) == 1
    only_speech = dataclasses.replace(CONFIG, tasks=("TTS",))
    with pytest.raises(ConfigError, match=r"nothing in .* fits the tasks TTS"):
        evaluate_checkpoint(HalfSystem(), corpus, only_speech, judges=judges)


def test_voice_prompts_come_with_consent_and_can_be_switched_off(system, corpus, judges):
    evaluate_checkpoint(system, corpus, CONFIG, judges=judges)
    assert {consent for tag, _, consent in system.calls if "TTS" in tag or "S2ST" in tag} == {True}
    system.calls.clear()
    evaluate_checkpoint(system, corpus, dataclasses.replace(CONFIG, use_voice_prompts=False), judges=judges)
    assert {consent for _, _, consent in system.calls} == {False}


def test_same_evaluation_twice_is_the_same(system, corpus, judges, report):
    again = evaluate_checkpoint(system, corpus, WITH_VOICES, judges=judges)
    assert again.measurements == report.measurements


def test_a_recording_is_judged_once_for_all_tasks(system, corpus, judges):
    evaluate_checkpoint(system, corpus, dataclasses.replace(CONFIG, tasks=("TTS",)), judges=judges)
    once = sum(judges.english.calls) + sum(judges.others.calls)
    evaluate_checkpoint(system, corpus, dataclasses.replace(CONFIG, tasks=("TTS", "S2ST")), judges=judges)
    generated = 5 + 2 + 4 + 1  # more generated speech, but no ceiling again
    assert sum(judges.english.calls) + sum(judges.others.calls) - 2 * once <= generated + 18


def test_without_a_judge_there_is_a_reason_and_no_number(system, corpus):
    report = evaluate_checkpoint(system, corpus, CONFIG, judges=Judges(None, None))
    scores = [m.score for m in report.find(task="TTS", name="CER")]
    assert scores
    assert all(s.value is None and "not judged" in s.reason for s in scores)
    assert "not judged" in report.judges["fr"]
    assert value(report, task="ASR", direction="en", system=MODEL, name="WER") > 0


def test_a_system_that_cannot_speak_says_so(mute_system, corpus, judges):
    report = evaluate_checkpoint(mute_system, corpus, CONFIG, judges=judges)
    score = report.find(task="TTS", direction="en", system=MODEL, name="CER")[0].score
    assert (score.value, score.reason) == (None, "the checkpoint has no codec/ and acoustic/, so it makes no sound")


def test_limits_items_directions_and_tasks(system, corpus, judges):
    config = dataclasses.replace(CONFIG, tasks=("ASR", "MT"), directions=("fr-en",), num_items=2)
    report = evaluate_checkpoint(system, corpus, config, judges=judges)
    assert {(m.task, m.direction) for m in report.measurements} == {("ASR", "fr"), ("MT", "fr-en")}
    assert all(m.score.num_scored + m.score.num_failed == 2 for m in report.find(system=MODEL))


def test_missing_splits_are_named(system, corpus, judges):
    config = dataclasses.replace(CONFIG, splits=("test", "test_speakers"), tasks=("ASR",))
    report = evaluate_checkpoint(system, corpus, config, judges=judges)
    assert any("'test_speakers'" in limit for limit in report.limits)
    with pytest.raises(ConfigError, match="none of"):
        evaluate_checkpoint(system, corpus, dataclasses.replace(CONFIG, splits=("dev",)), judges=judges)


def test_report_on_disk(report, tmp_path):
    page = write_report(report, tmp_path / "report")
    content = read_report_json(tmp_path / "report" / "report.json")
    assert len(content["measurements"]) == len(report.measurements)
    assert content == json.loads(json.dumps(report.to_dict()))
    assert page.read_text().count("data:audio/flac;base64,") == sum(len(s.audios) for s in report.samples)


def test_bad_config():
    with pytest.raises(ConfigError, match="num_items is 0"):
        EvaluationConfig(num_items=0)


class DeafJudge(ToyJudge):
    def transcribe(self, audios, language):
        return ["" for _ in audios]


def test_a_second_judge_adds_rows_and_changes_none(corpus):
    config = dataclasses.replace(CONFIG, tasks=("ASR", "TTS"))
    judges = Judges(ToyJudge("en"), ToyJudge("fr"))
    one = evaluate_checkpoint(ToySystem(), corpus, config, judges=judges)
    both = dataclasses.replace(judges, second=DeafJudge("en", name="deaf"))
    two = evaluate_checkpoint(ToySystem(), corpus, config, judges=both)
    seconds = [m for m in two.measurements if m.score.name.endswith(" by deaf")]
    assert [m for m in two.measurements if m not in seconds] == one.measurements
    # it hears nothing in English: the ceiling of ASR, and all four versions of what is spoken, are all wrong
    assert {(m.task, m.direction, m.system) for m in seconds} == {
        ("ASR", "en", ORIGINAL), *(("TTS", "en", system) for system in (MODEL, ORIGINAL, CODEC_COPY, RESYNTHESIS)),
    }  # fmt: skip
    assert {m.score.value for m in seconds if m.score.name.startswith("WER")} == {100}
    assert two.judges["en"] == "toy-judge and deaf"


def test_speech_that_nobody_judges_may_be_less(corpus):
    config = dataclasses.replace(CONFIG, num_unjudged_items=1, tasks=("TTS", "S2ST"))
    report = evaluate_checkpoint(ToySystem(), corpus, config, judges=Judges(ToyJudge("en")))
    num_items = {run.tag: run.num_items for run in report.runs}
    assert num_items["[TTS French]"] == num_items["[S2ST English French]"] == 1
    assert num_items["[TTS English]"] == num_items["[S2ST French English]"] > 1


def test_each_recording_is_encoded_once(corpus, monkeypatch):
    system = ToySystem()
    encoded = []
    monkeypatch.setattr(system, "encode", lambda audios: encoded.extend(audios) or list(audios))

    def num_encoded(*tasks):
        encoded.clear()
        evaluate_checkpoint(system, corpus, dataclasses.replace(CONFIG, tasks=tasks), judges=Judges())
        return len(encoded)

    alone = num_encoded("ASR")
    assert alone > 0
    # every recording that has a translation has a text as well
    assert num_encoded("ASR", "AST", "S2ST") == num_encoded("AST", "ASR") == alone
