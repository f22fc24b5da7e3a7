"""The five pipelines: every task, every form of input, lists as one by one, long audio, streams."""

import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Audio as AudioColumn
from datasets import Dataset
from huggingface_hub import constants
from transformers import TextIteratorStreamer, TextStreamer, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from speechllm.audio import Audio, load_audio, save_audio
from speechllm.errors import AudioError, CheckpointError, ConfigError, ConsentError, TaskError
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.hub import load_checkpoint
from speechllm.pipelines import inputs
from speechllm.pipelines.system import SpeechSystem
from speechllm.safety import detect_watermark
from tests.support.tiny import tiny_checkpoint, tiny_speech

AUDIO = tiny_speech(0.8)
SHORT = {"max_new_tokens": 6}
LANGUAGES = {"src_lang": "en", "tgt_lang": "fr"}
TASKS = (
    "automatic-speech-recognition", "translation", "speech-translation", "speech-to-speech-translation",
    "text-to-speech",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tasks") / "checkpoint", acoustic=True)


@pytest.fixture(scope="module")
def pipes(folder: Path) -> dict[str, Any]:
    """One pipeline for each task, all with short answers."""
    made = {}
    for task in TASKS:
        languages = LANGUAGES if "translation" in task else {}
        made[task] = pipeline(task, model=str(folder), device="cpu", **SHORT, **languages)
        # A random model does not stop speaking by itself.
        made[task].system.decoding = DecodingConfig(max_audio_seconds=0.8)
    return made


@pytest.fixture(scope="module")
def system(folder: Path) -> SpeechSystem:
    return SpeechSystem.from_pretrained(folder)


def given(task: str) -> list[Any]:
    if task in ("translation", "text-to-speech"):
        return ["good morning", "turn on the light", "no"]
    return [tiny_speech(s, seed=i) for i, s in enumerate((0.5, 1.3, 0.9))]


def equal(ours: Any, theirs: Any) -> bool:
    assert ours.keys() == theirs.keys()
    return all(np.array_equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 2.0, "seed": 3}])
def test_a_list_gives_what_its_items_give_one_by_one(pipes: dict[str, Any], task: str, options: dict[str, Any]):
    pipe, inputs = pipes[task], given(task)
    alone = [pipe(one, **options) for one in inputs]
    for size in (1, 2, 3):
        together = pipe(inputs, batch_size=size, **options)
        assert all(equal(ours, theirs) for ours, theirs in zip(together, alone, strict=True))
    lazily = pipe((one for one in inputs), batch_size=2, **options)
    assert not isinstance(lazily, list)
    assert all(equal(ours, theirs) for ours, theirs in zip(lazily, alone, strict=True))


def test_text_is_translated(pipes: dict[str, Any], system: SpeechSystem, folder: Path):
    whole = pipeline("translation", model=str(folder), device="cpu")
    (expected,) = system.translate(["good morning"], source="en", target="fr", text=True)
    assert whole("good morning", **LANGUAGES) == {"translation_text": expected.text}
    with pytest.raises(TaskError, match="expected a text"):
        pipes["translation"]("  ")


def test_text_is_spoken(pipes: dict[str, Any], system: SpeechSystem):
    pipe = pipes["text-to-speech"]
    said = pipe("bonjour", language="fr", max_new_tokens=20)
    assert said["audio"].dtype == np.float32
    assert (said["audio"].ndim, said["sampling_rate"]) == (1, 16_000)
    (expected,) = system.speak(["bonjour"], language="fr", decoding=pipe._decoding({"max_new_tokens": 20}))
    assert np.array_equal(said["audio"], expected.audio.samples)
    long = pipe("bonjour", max_new_tokens=100)
    assert detect_watermark(Audio(long["audio"], 16_000)).present
    assert not detect_watermark(Audio(pipe("bonjour", max_new_tokens=100, watermark=False)["audio"], 16_000)).present
    several = pipe("bonjour", candidates=3, max_new_tokens=20)
    assert not np.array_equal(several["audio"], pipe("bonjour", max_new_tokens=20)["audio"])


def test_speech_becomes_speech_in_one_chain(pipes: dict[str, Any], system: SpeechSystem):
    pipe = pipes["speech-to-speech-translation"]
    found = pipe(AUDIO)
    assert list(found) == ["text", "transcript", "audio", "sampling_rate"]
    (expected,) = system.run("[ASR AST S2ST English French]", [AUDIO], decoding=pipe._decoding(SHORT))
    assert (found["text"], found["transcript"]) == (expected.texts["translation"], expected.texts["transcript"])
    assert np.array_equal(found["audio"], expected.audio.samples)


def test_a_voice_needs_consent(pipes: dict[str, Any]):
    chain, speak = pipes["speech-to-speech-translation"], pipes["text-to-speech"]
    voice = tiny_speech(2.0, pitch=240.0)
    for stream in (False, True):
        with pytest.raises(ConsentError):
            chain(AUDIO, voice="source", stream=stream)
        with pytest.raises(ConsentError):
            speak("bonjour", voice=voice, stream=stream)
    drawn, other, own = chain(AUDIO), chain(AUDIO, voice=voice, consent=True), chain(AUDIO, voice=AUDIO, consent=True)
    source = chain(AUDIO, voice="source", consent=True)
    assert equal(source, own)
    assert not np.array_equal(source["audio"], drawn["audio"])
    assert not np.array_equal(source["audio"], other["audio"])
    inputs = given("speech-translation")
    together = chain(inputs, voice="source", consent=True, batch_size=3)
    assert all(equal(a, chain(b, voice=b, consent=True)) for a, b in zip(together, inputs, strict=True))


class _Server:
    """The files of a folder over HTTP on loopback."""

    def __init__(self, folder: Path):
        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any):
                super().__init__(*arguments, directory=str(folder))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[_Server]:
    server = _Server(tmp_path)
    yield server
    server.stop()


def test_every_form_of_input(pipes: dict[str, Any], tmp_path: Path, served: _Server):
    recognise = pipes["automatic-speech-recognition"]
    path = save_audio(AUDIO, tmp_path / "a.wav")
    expected = recognise(str(path))
    audio = load_audio(path)  # 16-bit files round the samples
    array = audio.samples
    forms = [
        path, path.read_bytes(), f"{served.url}/a.wav", {"path": str(path)}, {"bytes": path.read_bytes(), "path": None},
        {"array": array, "sampling_rate": 16_000}, {"raw": array, "sampling_rate": 16_000}, array,
        torch.from_numpy(array), torch.from_numpy(array)[None], audio,
    ]  # fmt: skip
    assert [recognise(form) for form in forms] == [expected] * len(forms)
    assert recognise(forms, batch_size=4) == [expected] * len(forms)
    assert recognise(tuple(forms[:2])) == [expected] * 2


def test_columns_of_datasets(pipes: dict[str, Any], tmp_path: Path):
    recognise = pipes["automatic-speech-recognition"]
    paths = [str(save_audio(audio, tmp_path / f"{i}.wav")) for i, audio in enumerate(given("speech-translation"))]
    expected = recognise(paths)
    plain = Dataset.from_dict({"audio": paths, "sentence": ["a", "b", "c"]})
    undecoded = plain.cast_column("audio", AudioColumn(decode=False))
    for dataset in (plain, undecoded):
        assert list(recognise(dataset["audio"], batch_size=2)) == expected
        assert list(recognise(KeyDataset(dataset, "audio"), batch_size=2)) == expected

    class Decoder:
        """What `datasets` gives for a decoded column, without torchcodec."""

        def __init__(self, path: str):
            self.path = path

        def get_all_samples(self) -> Any:
            import soundfile

            self.data, self.sample_rate = soundfile.read(self.path, dtype="float32")
            return self

    class Unending(torch.utils.data.Dataset):
        """Knows its length, and answers beyond it."""

        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, number: int) -> Any:
            return Decoder(paths[number % len(paths)])

    assert list(recognise(Unending())) == expected
    assert recognise(Decoder(paths[0])) == expected[0]


def test_an_address_that_gives_no_audio(
    pipes: dict[str, Any], tmp_path: Path, served: _Server, monkeypatch: pytest.MonkeyPatch
):
    recognise = pipes["automatic-speech-recognition"]
    (tmp_path / "page.html").write_text("<html></html>")
    save_audio(AUDIO, tmp_path / "a.wav")
    with pytest.raises(AudioError, match=r"none\.wav cannot be fetched: the server answered 404"):
        recognise(f"{served.url}/none.wav")
    with pytest.raises(AudioError, match="is not an audio file"):
        recognise(f"{served.url}/page.html")
    with pytest.raises(AudioError, match="cannot be fetched: "):
        recognise("http://127.0.0.1:9/a.wav")
    monkeypatch.setattr(inputs, "MAX_URL_BYTES", 1_000)
    with pytest.raises(AudioError, match="fetch it and pass the file"):
        recognise(f"{served.url}/a.wav")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AudioError, match="offline mode is on"):
        recognise(f"{served.url}/a.wav")


def long_audio() -> Audio:
    """Four utterances with pauses, one of them very long."""
    pause, silence = np.zeros(4_800, np.float32), np.zeros(16_000 * 6, np.float32)
    parts = [tiny_speech(1.7, seed=1).samples, pause, tiny_speech(1.5, seed=2).samples, silence]
    parts += [tiny_speech(1.9, seed=3).samples, pause, tiny_speech(1.2, seed=4).samples]
    return Audio(np.concatenate(parts), 16_000)


def test_long_audio_comes_with_times(pipes: dict[str, Any]):
    recognise = pipes["automatic-speech-recognition"]
    audio = long_audio()
    found = recognise(audio, chunk_length_s=2.5, return_timestamps=True)
    assert found["text"] == recognise(audio, chunk_length_s=2.5)["text"]
    assert found["text"] == " ".join(chunk["text"] for chunk in found["chunks"] if chunk["text"])
    spans = [chunk["timestamp"] for chunk in found["chunks"]]
    assert all(stop - start <= 2.5 + 1e-6 for start, stop in spans)
    heard = np.zeros(audio.num_samples, bool)
    for start, stop in spans:
        piece = slice(round(start * 16_000), round(stop * 16_000))
        assert not heard[piece].any(), "nothing twice"
        heard[piece] = True
        alone = recognise(Audio(audio.samples[piece], 16_000))["text"]
        assert alone == found["chunks"][spans.index((start, stop))]["text"]
    assert not audio.samples[~heard].any(), "only silence is left out"
    assert (~heard).sum() > 16_000 * 2, "and it is: a model would make up words for it"
    chunks = pipes["speech-translation"](audio, return_transcript=True, return_timestamps=True)["chunks"]
    assert [list(chunk) for chunk in chunks] == [["transcript", "text", "timestamp"]] * len(chunks)
    for wrong in ("word", "char"):
        with pytest.raises(ConfigError, match="times of words are not known"):
            recognise(audio, return_timestamps=wrong)
    with pytest.raises(AudioError, match=r"pieces of 0\.1 s are too short"):
        recognise(audio, chunk_length_s=0.1)


def test_an_answer_that_is_cut_off_is_said(folder: Path, caplog: pytest.LogCaptureFixture):
    """A random model seldom ends by itself."""
    recognise = pipeline("automatic-speech-recognition", model=str(folder), device="cpu")
    recognise.system.decoding = DecodingConfig(max_text_tokens=8)
    (output,) = recognise.system.transcribe([AUDIO])
    assert output.stop_reason == "too_long"
    recognise(AUDIO)
    (message,) = caplog.messages
    assert "1 of 1 answers did not end by themselves" in message
    caplog.clear()
    recognise(AUDIO, max_new_tokens=3)
    assert caplog.messages == [], "the user set the length"


def joined(events: list[dict[str, Any]], key: str) -> str:
    return "".join(event[key] for event in events if key in event)


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 1.5, "seed": 1}])
def test_a_stream_of_text_joins_to_the_text(pipes: dict[str, Any], options: dict[str, Any]):
    options = {"max_new_tokens": 40, **options}
    audio = long_audio()
    recognise, translate = pipes["automatic-speech-recognition"], pipes["speech-translation"]
    whole = recognise(audio, chunk_length_s=2.5, **options)["text"]
    events = list(recognise(audio, chunk_length_s=2.5, stream=True, **options))
    assert len(events) > 5
    assert joined(events, "text") == whole
    both = translate(AUDIO, return_transcript=True, **options)
    events = list(translate(AUDIO, return_transcript=True, stream=True, **options))
    assert {key: joined(events, key) for key in both} == both
    text = pipes["translation"]("good morning", stream=True, **options)
    assert joined(list(text), "translation_text") == pipes["translation"]("good morning", **options)["translation_text"]


def test_streamers_of_transformers(pipes: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    recognise = pipes["automatic-speech-recognition"]
    options = {"max_new_tokens": 40}
    expected = recognise(AUDIO, **options)
    printed = TextStreamer(recognise.tokenizer, skip_prompt=True, skip_special_tokens=True)
    assert recognise(AUDIO, streamer=printed, **options) == expected
    assert capsys.readouterr().out.strip() == expected["text"]
    iterated = TextIteratorStreamer(recognise.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60)
    writer = threading.Thread(target=lambda: recognise(AUDIO, streamer=iterated, **options))
    writer.start()
    assert "".join(iterated).strip() == expected["text"]
    writer.join()
    for wrong, message in (
        ({"streamer": printed, "num_beams": 2}, "beams know their text only at its end"),
        ({"stream": True, "num_beams": 2}, "beams know their text only at its end"),
    ):
        with pytest.raises(ConfigError, match=message):
            list(recognise(AUDIO, **wrong))
    with pytest.raises(ConfigError, match="one input at a time"):
        recognise([AUDIO], streamer=printed)
    with pytest.raises(ConfigError, match="one input at a time"):
        recognise([AUDIO], stream=True)


def test_a_stream_of_sound(pipes: dict[str, Any]):
    speak, chain = pipes["text-to-speech"], pipes["speech-to-speech-translation"]
    options = {"max_new_tokens": 20}
    events = list(speak("good morning", stream=True, **options))
    whole = speak("good morning", **options)
    assert sum(len(event["audio"]) for event in events) == len(whole["audio"])
    assert len(events) > 1
    lazily = speak((text for text in ("good morning", "no")), stream=True, **options)
    both = sum(len(speak(text, **options)["audio"]) for text in ("good morning", "no"))
    assert sum(len(event["audio"]) for event in lazily) == both
    audio, options = tiny_speech(3.0), {"chunk_length_s": 2.0}
    whole, events = chain(audio, **options), list(chain(audio, stream=True, voice="source", consent=True, **options))
    assert joined(events, "text") == whole["text"]
    assert joined(events, "transcript") == whole["transcript"]
    assert sum(len(event["audio"]) for event in events if "audio" in event) == len(whole["audio"])
    assert "transcript" in events[0], "words before their sound"
    with pytest.raises(ConfigError, match="a stream always carries the watermark"):
        speak("no", stream=True, watermark=False)


def test_device_and_dtype(folder: Path):
    for options in ({"device": "cpu"}, {"device": -1}, {"device_map": "cpu"}, {"device_map": {"": "cpu"}}):
        pipe = pipeline("automatic-speech-recognition", model=str(folder), dtype=torch.bfloat16, **options, **SHORT)
        assert pipe.model.dtype == torch.bfloat16
        assert pipe.model.device == torch.device("cpu")
        assert set(pipe(AUDIO)) == {"text"}
    assert pipeline("text-to-speech", model=str(folder), device="cpu").model.dtype == torch.float32


def test_a_pipeline_is_saved_as_a_whole_checkpoint(pipes: dict[str, Any], folder: Path, tmp_path: Path):
    pipes["text-to-speech"].save_pretrained(tmp_path / "saved")
    again = pipeline("text-to-speech", model=str(tmp_path / "saved"), device="cpu", **SHORT)
    assert equal(again("no"), pipes["text-to-speech"]("no"))
    assert load_checkpoint(tmp_path / "saved").manifest == load_checkpoint(folder).manifest


def test_what_cannot_be_done_is_one_line(pipes: dict[str, Any], tmp_path: Path):
    mute = tiny_checkpoint(tmp_path / "mute")
    for task, what in (("text-to-speech", "no"), ("speech-to-speech-translation", AUDIO)):
        pipe = pipeline(task, model=str(mute), device="cpu", **(LANGUAGES if "translation" in task else {}))
        with pytest.raises(CheckpointError, match="this checkpoint cannot make sound"):
            pipe(what)
    for task, options, message in (
        ("text-to-speech", {"num_beams": 2}, "unknown option 'num_beams' for text-to-speech"),
        ("text-to-speech", {"temperature": 0.5}, "pass do_sample=True"),
        ("automatic-speech-recognition", {"voice": AUDIO}, "unknown option 'voice'"),
        ("automatic-speech-recognition", {"stride_length_s": 3}, "unknown option 'stride_length_s'"),
        ("speech-translation", {"return_audio": True, "stream": True}, "use speech-to-speech-translation"),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            pipes[task]("no" if task == "text-to-speech" else AUDIO, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="needs two languages"):
        pipeline("translation", model=str(mute), device="cpu")("no")
    with pytest.raises(TaskError, match="unknown language"):
        pipes["automatic-speech-recognition"](AUDIO, language="klingon")
    with pytest.raises(AudioError, match="no audio file at"):
        pipes["automatic-speech-recognition"]("nowhere.wav")
