"""OpenAI's interface with OpenAI's client: shapes, formats, errors. The answers are those of the system itself."""

import dataclasses
import io
import itertools
import json
import re

import numpy as np
import openai
import pytest
import soundfile

from speechllm.audio import Audio, encode_flac
from speechllm.pipelines.system import SpeechSystem
from speechllm.safety import detect_watermark
from speechllm.tasks import TrainedFor
from tests.support.tiny import tiny_speech
from tests.unit.serving.conftest import running


@pytest.fixture(scope="module")
def client(server):
    with server.client() as connected:
        yield connected


def flac(seconds=1.0, seed=0):
    return encode_flac(tiny_speech(seconds, seed=seed))


def test_a_transcript_is_what_the_system_writes(client, system):
    content = flac()
    answer = client.audio.transcriptions.create(model="tiny", file=("a.flac", content), language="fr")
    assert answer.text == system.transcribe([content], language="fr")[0].text
    assert answer.usage.seconds == 1


# The newest client calls its own method for translations old; others still use it.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_a_translation_is_what_the_system_writes(client, system):
    content = flac(seed=1)
    wanted = system.translate([content], source="fr", target="en")[0].text
    assert client.audio.translations.create(model="tiny", file=("a.flac", content)).text == wanted
    other = client.audio.translations.create(
        model="tiny", file=("a.flac", content), extra_body={"language": "en", "to": "fr"}
    )
    assert other.text == system.translate([content], source="en", target="fr")[0].text


def test_long_audio_comes_back_in_segments_that_cover_it(client, system):
    audio = tiny_speech(40.0)
    answer = client.audio.transcriptions.create(
        model="tiny", file=("a.flac", encode_flac(audio)), response_format="verbose_json",
        timestamp_granularities=["segment"],
    )  # fmt: skip
    segments = answer.segments
    assert len(segments) >= 2
    assert segments[0].start == 0
    assert all(a.end <= b.start for a, b in itertools.pairwise(segments))
    assert answer.duration == pytest.approx(40.0)
    assert segments[-1].end <= 40.0
    assert answer.language == "english"
    assert answer.text == system.transcribe([encode_flac(audio)])[0].text


def test_silence_in_a_long_recording_is_left_out_and_its_times_stay(client, system):
    speech, silence = tiny_speech(12.0).samples, np.zeros(16_000 * 24, np.float32)
    content = encode_flac(Audio(np.concatenate([speech, silence, speech, silence]), 16_000))
    answer = client.audio.transcriptions.create(model="tiny", file=("a.flac", content), response_format="verbose_json")
    assert answer.duration == pytest.approx(72.0)
    assert answer.segments[-1].end < 72.0
    assert len(answer.segments) < len(silence) * 2 / 16_000
    assert answer.text == system.transcribe([content])[0].text


def test_text_and_subtitles(client):
    content = flac()
    plain, srt, vtt = (
        client.audio.transcriptions.create(model="tiny", file=("a.flac", content), response_format=kind)
        for kind in ("text", "srt", "vtt")
    )
    text = plain.strip()
    assert text
    assert srt == f"1\n00:00:00,000 --> 00:00:01,000\n{' '.join(text.split()).replace('-->', '->')}\n"
    assert vtt == "WEBVTT\n\n" + srt.removeprefix("1\n").replace(",", ".", 2)


def decoded(content):
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    return Audio(samples, rate)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "opus"])
def test_speech_is_what_the_system_says_with_its_watermark(client, system, kind):
    said = system.speak(["turn on the light please"])[0].audio
    content = client.audio.speech.create(
        model="tiny", input="turn on the light please", voice="default", response_format=kind
    ).read()
    got = decoded(content)
    assert got.sample_rate == said.sample_rate
    if kind in ("wav", "flac"):
        assert np.abs(got.samples - said.samples).max() < 1e-3
    assert got.duration_seconds == pytest.approx(said.duration_seconds, abs=0.1)
    assert detect_watermark(got).present


def test_pcm_has_24_khz_and_no_header(client, system):
    said = system.speak(["good morning"])[0].audio
    content = client.audio.speech.create(model="tiny", input="good morning", voice="default", response_format="pcm")
    assert len(content.read()) == pytest.approx(2 * 24_000 * said.duration_seconds, abs=4)


def test_sentences_are_streamed_in_one_voice_with_one_watermark(client, system):
    sentences = ["Good morning.", "The train leaves at nine."]
    with client.audio.speech.with_streaming_response.create(
        model="tiny", input=" ".join(sentences), voice="default", response_format="wav"
    ) as answer:
        parts = list(answer.iter_bytes())
    got = decoded(b"".join(parts))
    first = system.speak(sentences[:1])[0].audio
    second = system.speak(sentences[1:], voice=first, consent=True, watermark=False)[0].audio
    assert np.abs(got.samples[: first.num_samples] - first.samples).max() < 1e-3
    assert got.num_samples == first.num_samples + second.num_samples
    assert detect_watermark(got).score > max(detect_watermark(first).score - 1, 6.5)


def test_a_registered_voice_speaks_and_no_other(client, system, voice):
    content = client.audio.speech.create(model="tiny", input="good morning", voice="anna", response_format="wav").read()
    said = system.speak(["good morning"], voice=voice.audio, consent=True)[0].audio
    assert np.abs(decoded(content).samples - said.samples).max() < 1e-3
    for name in ("/etc/passwd", "anna.wav", "https://example.com/a.wav", "../anna", ""):
        with pytest.raises(openai.BadRequestError, match="known: default, anna"):
            client.audio.speech.create(model="tiny", input="hello", voice=name)


def test_models_and_health(client, server):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "speechllm"
    with pytest.raises(openai.NotFoundError, match="only 'tiny'"):
        client.models.retrieve("whisper-1")
    health = client._client.get(f"http://127.0.0.1:{server.port}/health")
    assert health.json() == {"status": "ok", "open_requests": 0, "open_audio_seconds": 0.0}


LONG = Audio(np.zeros(16_000 * 130, np.float32), 16_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, I am no audio", "is not audio"),
        (encode_flac(tiny_speech())[:4000], "be read|cut short"),
        (b"RIFF\xff\xff\xff\xffWAVEfmt ", "is not audio"),
        (encode_flac(LONG), "at most 120 s"),
    ],
    ids=["empty", "text", "cut", "header alone", "two minutes of silence in few bytes"],
)
def test_bad_audio_is_the_request_s_fault(client, content, message):
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model="tiny", file=("a.flac", content))
    assert re.search(message, caught.value.body["message"])
    assert caught.value.body["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("options", "param", "status"),
    [
        ({"model": "whisper-1"}, "model", 404),
        ({"language": "klingon"}, "language", 400),
        ({"response_format": "diarized_json"}, "response_format", 400),
        ({"temperature": 5}, "temperature", 400),
        ({"temperature": float("nan")}, "temperature", 400),
        ({"prompt": "names: Anna"}, "prompt", 400),
        ({"timestamp_granularities": ["word"], "response_format": "verbose_json"}, "timestamp_granularities[]", 400),
        ({"extra_body": {"langage": "en"}}, "langage", 400),
        ({"extra_body": {"path": "/etc/passwd"}}, "path", 400),
    ],
)
def test_what_cannot_be_honoured_is_named(client, options, param, status):
    with pytest.raises(openai.APIStatusError) as caught:
        client.audio.transcriptions.create(**{"model": "tiny", "file": ("a.flac", flac()), **options})
    assert (caught.value.status_code, caught.value.body["param"]) == (status, param)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"input": " "}, "input"),
        ({"input": "a" * 5000}, "input"),
        ({"speed": 2.0}, "speed"),
        ({"instructions": "whisper"}, "instructions"),
        ({"response_format": "aac"}, "response_format"),
        ({"extra_body": {"voice": {"id": "/etc/passwd"}}}, "voice"),
        ({"extra_body": {"voice": "data:audio/wav;base64,UklGRg=="}}, "voice"),
    ],
)
def test_speech_that_cannot_be_made_is_refused(client, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.speech.create(**{"model": "tiny", "input": "hello", "voice": "default", **options})
    assert caught.value.body["param"] == param


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/v1/audio/speech", b"{", 400),
        ("POST", "/v1/audio/speech", b"[1]", 400),
        ("POST", "/v1/audio/speech", b"\xff", 400),
        ("POST", "/v1/audio/transcriptions", b"hello", 400),
        ("GET", "/v1/audio/speech", b"", 405),
        ("GET", "/docs", b"", 404),
        ("GET", "/etc/passwd", b"", 404),
    ],
)
def test_every_error_has_openai_s_form(client, server, method, path, content, status):
    answer = client._client.request(method, f"http://127.0.0.1:{server.port}{path}", content=content)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_multipart_form_without_a_file(client, server):
    boundary = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n--x--\r\n'
    answer = client._client.post(
        f"http://127.0.0.1:{server.port}/v1/audio/transcriptions", content=boundary,
        headers={"content-type": "multipart/form-data; boundary=x"},
    )  # fmt: skip
    assert answer.status_code == 400
    assert json.loads(answer.content)["error"]["param"] == "file"


# The newest client calls its own method for translations old; others still use it.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_what_was_not_trained_is_refused_and_named(system):
    trained = TrainedFor(tasks={"ASR": ("en",), "ASR AST": ("fr-en",), "TTS": ("en",)})
    half = SpeechSystem(dataclasses.replace(system.checkpoint, trained=trained))
    upload = {"model": "tiny", "file": ("a.flac", flac(0.4))}
    with running(half) as server, server.client() as client:
        for call, said in (
            (lambda: client.audio.transcriptions.create(**upload, language="de"), "[ASR German]: its ASR knows en"),
            (lambda: client.audio.translations.create(**upload, extra_body={"language": "en", "to": "fr"}), "[AST"),
            (lambda: client.audio.speech.create(
                model="tiny", input="hallo", voice="default", extra_body={"language": "de"}), "its TTS knows en"),
        ):  # fmt: skip
            with pytest.raises(openai.BadRequestError) as refused:
                call()
            assert refused.value.code == "untrained"
            assert said in str(refused.value)
            assert "allow" not in str(refused.value), "that is for the operator to say"
        assert client.audio.translations.create(**upload).text is not None, "by the chain that it knows"
