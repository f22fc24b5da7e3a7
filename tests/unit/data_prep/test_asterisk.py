"""Recorded prompts: found by language, joined by id, split by a hash, and marked with who wrote the text."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from data_prep.asterisk import decode_g722, download_asterisk, language_folder, prompts, records
from data_prep.pseudo_label import read_labels, write_labels
from speechllm.audio import load_audio
from speechllm.errors import AudioError, DataError

NAMES = {
    "en_US_f_Allison": ("vm-goodbye", "digits/1", "beep", "only-en"),
    "fr_CA_f_June": ("vm-goodbye", "digits/1", "beep"),
}


def write_g722(path, seconds=0.3):
    """Write a tone as raw G.722."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = (8000 * np.sin(2 * np.pi * 400 * np.arange(int(seconds * 16_000)) / 16_000)).astype(np.int16)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.fixture
def sounds(tmp_path):
    for folder, names in NAMES.items():
        for name in names:
            write_g722(tmp_path / "usr" / "share" / "sounds" / folder / f"{name}.g722")
    (tmp_path / "en.txt").write_text("; English\n\nvm-goodbye: Goodbye\ndigits/1: one\n")
    (tmp_path / "fr.tsv").write_text("vm-goodbye\tAu revoir.\n")
    return tmp_path


def test_g722_is_decoded_at_its_rate(sounds):
    audio = decode_g722(language_folder(sounds, "en") / "vm-goodbye.g722")
    assert audio.sample_rate == 16_000
    assert audio.duration_seconds == pytest.approx(0.3, abs=0.01)
    assert np.abs(np.fft.rfft(audio.samples)).argmax() / audio.duration_seconds == pytest.approx(400, abs=10)


def test_prompts_are_joined_by_id(sounds):
    options = {"transcripts": {"en": sounds / "en.txt"}, "weak_labels": {"fr": sounds / "fr.tsv"}}
    found = {record.id: record for record in records(sounds, ("en", "fr"), **options)}
    assert set(found) == {"vm-goodbye-en-fr", "digits/1-en-fr", "only-en-en"}
    goodbye = found["vm-goodbye-en-fr"]
    assert (goodbye.text, goodbye.label_source, goodbye.speaker) == ("Goodbye", "human", "en_US_f_Allison")
    assert (goodbye.translation.text, goodbye.translation.label_source) == ("Au revoir.", "pseudo")
    assert load_audio(goodbye.translation.audio).duration_seconds == pytest.approx(0.3, abs=0.01)
    assert found["digits/1-en-fr"].translation.text == ""
    assert found["only-en-en"].translation is None


def test_a_prompt_keeps_its_split_whatever_the_languages(sounds):
    both = {record.id.rsplit("-en", 1)[0]: record.split for record in records(sounds, ("en", "fr"))}
    alone = {record.id.rsplit("-en", 1)[0]: record.split for record in records(sounds, ("en",))}
    assert both == alone
    everything = records(sounds, ("en",), test_fraction=1.0, validation_fraction=0.0)
    assert {record.split for record in everything} == {"test"}


def test_what_is_missing_is_one_clear_line(sounds, monkeypatch):
    with pytest.raises(
        DataError, match=r"no es_\*/\*\.g722 below .*; extract the package asterisk-core-sounds-es-g722"
    ):
        next(records(sounds, ("es",)))
    with pytest.raises(DataError, match=r"cannot read labels .*nowhere\.txt"):
        next(records(sounds, ("en",), transcripts={"en": sounds / "nowhere.txt"}))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match="apt-get is not on this system; get asterisk-core-sounds-en-g722"):
        download_asterisk(sounds)


def test_an_empty_recording_is_refused(tmp_path):
    (tmp_path / "a.g722").write_bytes(b"")
    with pytest.raises(AudioError, match=r"a\.g722"):
        decode_g722(tmp_path / "a.g722")


def test_labelling_continues_where_it_was_killed(sounds):
    calls = []

    def recogniser(audios):
        calls.append(len(audios))
        return [f"heard  {audio.num_samples}" for audio in audios]

    items = list(prompts(language_folder(sounds, "en")))
    path = write_labels(items, recogniser, sounds / "whole.tsv", batch_size=2)
    assert calls == [2, 1]
    assert set(read_labels(path)) == {"vm-goodbye", "digits/1", "only-en"}
    whole = path.read_bytes()
    # A kill may leave a line half written.
    path.write_bytes(whole[: whole.index(b"\n") + 5])
    write_labels(items, recogniser, path, batch_size=2)
    assert path.read_bytes() == whole


def test_a_label_file_of_another_form_is_refused(tmp_path):
    (tmp_path / "labels.txt").write_text("a: one\nthis is a line\n")
    with pytest.raises(DataError, match=r"labels\.txt line 2 is 'this is a line', expected"):
        read_labels(tmp_path / "labels.txt")


@pytest.mark.assets
@pytest.mark.skipif("SPEECHLLM_ASTERISK" not in os.environ, reason="SPEECHLLM_ASTERISK names no folder")
def test_the_packages_hold_what_the_docs_say():
    folder = Path(os.environ["SPEECHLLM_ASTERISK"])
    found = list(records(folder, ("en", "fr")))
    pairs = [record for record in found if record.translation is not None]
    assert len(pairs) > 500
    assert 0.1 < sum(record.split == "test" for record in pairs) / len(pairs) < 0.2
