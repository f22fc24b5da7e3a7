"""Sentences and bytes of speech."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speechllm.audio import Audio
from speechllm.serving.speech import LONGEST_SENTENCE, SpeechStream, encode_speech, split_sentences
from tests.support.tiny import tiny_speech


def test_sentences_end_where_people_end_them():
    text = "Good morning. Where is it?  At 3.14 km!\nnew line \u4f60\u597d\u3002\u518d\u89c1"
    assert split_sentences(text) == [
        "Good morning.", "Where is it?", "At 3.14 km!", "new line \u4f60\u597d\u3002", "\u518d\u89c1",
    ]  # fmt: skip
    long = "one, two " * 60
    parts = split_sentences(long)
    assert len(parts) > 1
    assert all(part.endswith(",") for part in parts[:-1])


@given(st.text(alphabet="ab .,?!\n;:", max_size=1200))
def test_no_word_is_lost_and_no_sentence_is_long(text):
    parts = split_sentences(text)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(0 < len(part) <= LONGEST_SENTENCE for part in parts)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "opus"])
def test_files_keep_their_length_at_any_rate(kind, rate):
    audio = tiny_speech(1.0).resampled(rate)
    samples, found = soundfile.read(io.BytesIO(encode_speech(audio, kind)))
    assert len(samples) / found == pytest.approx(1.0, abs=0.1)
    assert kind == "opus" or found == rate


def test_a_stream_is_the_file_but_for_the_length_in_its_header():
    audio = tiny_speech(1.0)
    pieces = [Audio(part, 16_000) for part in np.array_split(audio.samples, 3)]
    stream = SpeechStream("wav")
    streamed, whole = b"".join(stream.push(piece) for piece in pieces), encode_speech(audio, "wav")
    assert streamed[44:] == whole[44:]
    for content in (streamed, whole):
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
        assert rate == 16_000
        assert np.abs(samples - audio.samples).max() < 1e-4
