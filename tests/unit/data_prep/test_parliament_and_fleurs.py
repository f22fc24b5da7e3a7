"""VoxPopuli and FLEURS: both layouts, speech on both sides, splits that hold for pairs too."""

import pytest

from data_prep import fleurs, voxpopuli
from speechllm.data.prepare import prepare_corpus
from speechllm.errors import DataError, TaskError
from tests.support import shipped_corpora as shipped
from tests.support.shipped_corpora import pack, pitch_of

SPLITS = ["train", "train", "validation", "test"]


@pytest.mark.parametrize("on_hub", [False, True], ids=["by its scripts", "files on the Hub"])
def test_voxpopuli_transcribed(tmp_path, on_hub):
    source = shipped.voxpopuli(tmp_path, on_hub)
    for place in (source, source / "fr"):
        found = {int(r.id[-6]): r for r in voxpopuli.records(place, "fr")}
        assert set(found) == {0, 1, 2, 3}
        for number, record in found.items():
            assert pitch_of(record.audio) == 300 + 100 * number
            assert (record.text, record.speaker, record.split) == (f"phrase {number}", f"1{number}", SPLITS[number])
    raw = {int(r.id[-6]): r.text for r in voxpopuli.records(source, "fr", text="raw_text", splits=["train"])}
    assert raw == {0: "Phrase 0.", 1: 'Il a dit "non.'}


@pytest.mark.parametrize("packed", [False, True])
def test_voxpopuli_interpreted_takes_the_split_of_the_source(tmp_path, packed):
    source = shipped.voxpopuli(tmp_path)
    # What was interpreted but not transcribed has no split of its own.
    lines = (source / "fr" / "asr_train.tsv").read_text().splitlines()
    (source / "fr" / "asr_train.tsv").write_text("\n".join(lines[:-1]) + "\n")
    if packed:
        source = pack(source, tmp_path / "vox.tar.gz")
    found = {int(r.id[-9]): r for r in voxpopuli.records(source, "fr", target="en")}
    assert {number: record.split for number, record in found.items()} == dict(enumerate(SPLITS))
    for number, record in found.items():
        assert pitch_of(record.audio) == 300 + 100 * number
        assert pitch_of(record.translation.audio) == 350 + 100 * number
        assert record.translation.text == ("a sentence" if number == 0 else "")
    only = list(voxpopuli.records(source, "fr", target="en", splits=["dev"]))
    assert [record.split for record in only] == ["validation"]


def test_what_is_wrong_with_voxpopuli_is_one_clear_line(tmp_path):
    source = shipped.voxpopuli(tmp_path)
    with pytest.raises(DataError, match=r"has no fr/de/s2s.tsv; run voxpopuli.get_s2s_data"):
        list(voxpopuli.records(source, "fr", target="de"))
    with pytest.raises(DataError, match=r"has no de/asr_train.tsv"):
        list(voxpopuli.records(source, "de"))
    with pytest.raises(DataError, match="VoxPopuli has no 'sw'"):
        list(voxpopuli.records(source, "sw"))
    with pytest.raises(DataError, match="expected one of normalized_text, raw_text"):
        list(voxpopuli.records(source, "fr", text="text"))
    path = source / "fr" / "asr_train.tsv"
    path.write_text(path.read_text().replace("normalized_text", "normalised"))
    with pytest.raises(DataError, match=r"asr_train.tsv has no column 'normalized_text'; did you mean 'normalised'"):
        list(voxpopuli.records(source, "fr"))


def test_fleurs_has_its_102_languages():
    assert len(fleurs.CONFIGS) == len(fleurs.BY_CODE) == 102
    assert (fleurs.BY_CODE["zh"], fleurs.BY_CODE["no"], fleurs.BY_CODE["tl"]) == ("cmn_hans_cn", "nb_no", "fil_ph")


@pytest.mark.parametrize("place", ["data", "", "data/fr_fr"])
def test_fleurs_in_one_language(tmp_path, place):
    shipped.fleurs(tmp_path, "fr_fr", 300)
    found = list(fleurs.records(tmp_path / place, "fr"))
    assert [record.split for record in found] == ["train"] * 3 + ["validation"] * 3 + ["test"] * 3
    assert [pitch_of(record.audio) for record in found[:3]] == [300, 400, 500]
    assert [record.text for record in found[:3]] == ["Le roi est là.", 'Elle dit "oui".', 'Elle dit "oui".']
    plain = list(fleurs.records(tmp_path / place, "fr_fr", splits=["dev"], text="transcription"))
    assert [record.text for record in plain] == ["le roi est là", "elle dit oui", "elle dit oui"]


def test_fleurs_in_two_languages_pairs_readings_in_turn(tmp_path):
    shipped.fleurs(tmp_path, "fr_fr", 300, readings=(0, 1, 1))
    source = shipped.fleurs(tmp_path, "en_us", 350, readings=(1, 1, 0))
    found = list(fleurs.records(source, "fr", target="en", splits=["test"]))
    pairs = [(pitch_of(record.audio), pitch_of(record.translation.audio)) for record in found]
    assert pairs == [(300, 550), (400, 350), (500, 450)]
    texts = [(record.text, record.translation.text) for record in found]
    assert texts == [("Le roi est là.", "The king is here."), *[('Elle dit "oui".', 'She says "yes".')] * 2]
    assert len({record.id for record in found}) == 3
    report = prepare_corpus(fleurs.records(source, "fr", target="en"), tmp_path / "out")
    assert report.num_records == {"train": 3, "validation": 3, "test": 3}
    assert set(report.hours) == {"fr", "en"}


def test_what_is_wrong_with_fleurs_is_one_clear_line(tmp_path):
    source = shipped.fleurs(tmp_path, "fr_fr", 300)
    with pytest.raises(DataError, match="has no folder en_us, which FLEURS has for 'en'"):
        list(fleurs.records(source, "fr", target="en"))
    with pytest.raises(TaskError, match="unknown language 'xx_yy'"):
        list(fleurs.records(source, "xx_yy"))
    with pytest.raises(DataError, match="FLEURS has no 'Esperanto'"):
        list(fleurs.records(source, "Esperanto"))
    with pytest.raises(DataError, match="one language at a time"):
        list(fleurs.records("hub", "fr", target="en"))
    archive = source / "fr_fr" / "audio" / "dev.tar.gz"
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match=r"dev.tar.gz is cut short or damaged"):
        list(fleurs.records(source, "fr"))
