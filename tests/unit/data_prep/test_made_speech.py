"""Parallel text that a TTS speaks, and recordings that a recogniser labels."""

import numpy as np
import pytest

from data_prep import parallel_text, pseudo_label
from speechllm.audio import Audio
from speechllm.errors import DataError
from tests.support import shipped_corpora as shipped
from tests.support.shipped_corpora import pack, pitch_of, sound, tone, write


def speak(texts, language):
    """Say each text as a tone: its length tells the pitch, the language the octave."""
    base = {"en": 300, "fr": 600}[language]
    return [Audio(tone(base + 50 * (len(text) % 5)).astype(np.float32), 16_000) for text in texts]


def speak_too_little(texts, language):
    return speak(texts, language)[:-1]


def test_lines_of_ted_become_records_with_speech_on_both_sides(tmp_path):
    found = list(parallel_text.records(shipped.ted_text(tmp_path), speak=speak))
    assert [(r.id, r.text, r.translation.text) for r in found] == [
        ("train-00000001-en-fr", "Good morning.", "Bonjour."),
        ("train-00000002-en-fr", "The red house.", "La maison rouge."),
    ]
    for record in found:
        assert pitch_of(record.audio) == 300 + 50 * (len(record.text) % 5)
        assert pitch_of(record.translation.audio) == 600 + 50 * (len(record.translation.text) % 5)
        assert record.label_source == record.translation.label_source == "synthetic"


def test_one_side_may_stay_text_and_both_may(tmp_path):
    source = shipped.ted_text(tmp_path)
    first, *_ = parallel_text.records(source, speak=speak, spoken=["French"])
    assert first.audio is None
    assert first.label_source == "human"
    assert first.translation.audio is not None
    silent = list(parallel_text.records(source, name="ted", split="validation"))
    assert [(r.id, r.split, r.audio, r.translation.audio) for r in silent] == [
        (f"ted-{n:08d}-en-fr", "validation", None, None) for n in (1, 2)
    ]


def test_a_table_has_a_column_a_language(tmp_path):
    write(tmp_path, {"news.tsv": 'The "house".\tLa maison.\n\tVide.\nA very long line\tLongue\n'})
    found = list(parallel_text.records(tmp_path / "news.tsv", languages=["en", "fr"], max_characters=14))
    assert [(r.text, r.translation.text) for r in found] == [('The "house".', "La maison.")]


@pytest.mark.slow
def test_pico_speaks_and_its_speech_is_the_same_again(tmp_path):
    pytest.importorskip("py_nanotts")
    runs = [list(parallel_text.records(shipped.ted_text(tmp_path), speak="pico")) for _ in range(2)]
    assert runs[0] == runs[1]
    assert all(record.audio.startswith(b"fLaC") for record in runs[0])


def test_what_is_wrong_with_text_is_one_clear_line(tmp_path):
    source = shipped.ted_text(tmp_path)
    for options, message in (
        ({"speak": speak_too_little}, "the TTS gave 1 audios for 2 texts in 'en'"),
        ({"speak": "pikko"}, "speak is 'pikko', expected pico or package.module:function"),
        ({"speak": "no_such_module:speak"}, "No module named 'no_such_module'"),
        ({"speak": speak, "spoken": ["de"]}, "spoken has de, the text is in en, fr"),
    ):
        with pytest.raises(DataError, match=message):
            list(parallel_text.records(source, **options))
    with pytest.raises(DataError, match="name the languages of its columns"):
        list(parallel_text.records(tmp_path / "news.tsv"))
    write(tmp_path, {"short.en": "One line.\n"})
    with pytest.raises(DataError, match="parallel files must have equally many lines"):
        list(parallel_text.records({**source, "en": str(tmp_path / "short.en")}))


@pytest.mark.parametrize("packed", [False, True])
def test_labelled_audio_becomes_records_marked_pseudo(tmp_path, packed):
    source = write(tmp_path / "radio", {f"monday/{n}.flac": sound(".flac", 300 + 100 * n) for n in range(3)})
    if packed:
        source = pack(source, tmp_path / "radio.tar.gz")
    write(tmp_path, {"labels.tsv": "monday/1\tau revoir\nmonday/0\tbonjour\nmonday/2\t\nmonday/9\tperdu\n"})
    found = list(pseudo_label.records(source, "fr", tmp_path / "labels.tsv"))
    assert [(r.id, r.text, r.label_source) for r in found] == [
        ("monday/0", "bonjour", "pseudo"),
        ("monday/1", "au revoir", "pseudo"),
        ("monday/9", "perdu", "pseudo"),
    ]
    assert [pitch_of(record.audio) for record in found[:2]] == [300, 400]
    assert not found[2].audio.exists()


def test_a_recogniser_labels_what_has_no_label_yet(tmp_path, monkeypatch):
    source = write(tmp_path / "radio", {f"{n}.wav": sound(".wav", 300 + 100 * n) for n in range(3)})
    write(source, {"broken.wav": b"no audio"})
    write(tmp_path, {"labels.tsv": "1\tby hand\n"})
    heard = []

    def recogniser(audios):
        heard.extend(pitch_of(audio) for audio in audios)
        return [f"heard {pitch_of(audio)}" for audio in audios]

    monkeypatch.setattr(pseudo_label, "whisper_recogniser", lambda model, language: recogniser)
    found = list(pseudo_label.records(source, "fr", tmp_path / "labels.tsv", whisper="whisper-base"))
    assert heard == [300, 500]
    assert [record.text for record in found] == ["heard 300", "by hand", "heard 500"]
    write(tmp_path, {"none.tsv": ""})
    with pytest.raises(DataError, match="has no labels; give whisper="):
        list(pseudo_label.records(source, "fr", tmp_path / "none.tsv"))
