"""Common Voice and what is built on it: the published splits, the right sound with the right text, on both sides."""

import pytest

from data_prep import common_voice, covost2, cvss
from speechllm.data.prepare import prepare_corpus
from speechllm.errors import DataError, TaskError
from tests.support import shipped_corpora as shipped
from tests.support.shipped_corpora import pack, pitch_of, table, write

SENTENCES = ["Bonjour à tous.", '"Viens" dit-elle.', 'Un clou de 5" ici.', "Au revoir."]
SPLITS = ["train", "train", "validation", "test"]


def number_of(record):
    return int(record.id.split("-")[0].rsplit("_", 1)[1])


def checked(records):
    """Check that every record has the sound, sentence, speaker and split of its number; return them by number."""
    found = {number_of(record): record for record in records}
    for number, record in found.items():
        assert pitch_of(record.audio) == 300 + 100 * number
        assert record.text == SENTENCES[number]
        assert record.speaker == f"fr{number:02d}" * 4
        assert (record.split, record.language) == (SPLITS[number], "fr")
    return found


@pytest.mark.parametrize("header", [shipped.CV_HEADER_4, shipped.CV_HEADER_17], ids=["release 4", "release 17"])
@pytest.mark.parametrize("form", ["language", "release", "archive"])
def test_every_layout_gives_the_published_splits(tmp_path, header, form):
    place = shipped.common_voice(tmp_path / "cv-corpus", header=header)
    if form == "archive":
        source = pack(tmp_path / "cv-corpus", tmp_path / "cv-corpus-fr.tar.gz")
    else:
        source = place if form == "language" else place.parent
    assert set(checked(common_voice.records(source, "French"))) == {0, 1, 2, 3}
    assert set(checked(common_voice.records(source, "fr", splits=["dev"]))) == {2}


def test_a_release_of_several_languages_is_read_one_at_a_time(tmp_path):
    for locale in ("fr", "sv-SE"):
        shipped.common_voice(tmp_path, locale)
    assert {r.language for r in common_voice.records(tmp_path, "fr")} == {"fr"}
    swedish = list(common_voice.records(tmp_path, "sv-SE", splits=["train"]))
    assert [record.id for record in swedish] == ["common_voice_sv-SE_0", "common_voice_sv-SE_1"]
    assert list(common_voice.records(tmp_path, "Swedish", splits=["train"])) == swedish


def test_validated_is_a_split_of_its_own_unless_a_published_one_has_the_clip(tmp_path):
    place = shipped.common_voice(tmp_path)
    splits = {number_of(r): r.split for r in common_voice.records(place, "fr", splits=["validated"])}
    assert splits == dict.fromkeys(range(4), "validated")
    splits = {number_of(r): r.split for r in common_voice.records(place, "fr", splits=["test", "validated"])}
    assert splits == {0: "validated", 1: "validated", 2: "validated", 3: "test"}


def test_a_clip_that_is_not_there_is_named(tmp_path):
    place = shipped.common_voice(tmp_path)
    (place / "clips" / "common_voice_fr_1.mp3").unlink()
    report = prepare_corpus(common_voice.records(place, "fr"), tmp_path / "out")
    assert sum(report.num_records.values()) == 3
    assert [failure.id for failure in report.failures] == ["common_voice_fr_1"]


def test_what_is_wrong_with_common_voice_is_one_clear_line(tmp_path):
    place = shipped.common_voice(tmp_path)
    with pytest.raises(TaskError, match="unknown language 'klingon'"):
        list(common_voice.records(place, "klingon"))
    with pytest.raises(DataError, match="Common Voice has no split 'valid'; did you mean 'validated'"):
        list(common_voice.records(place, "fr", splits=["valid"]))
    with pytest.raises(DataError, match=r"must have one train.tsv of 'fr', it has none"):
        list(common_voice.records(place / "clips", "fr"))
    with pytest.raises(DataError, match="this corpus has no place of its own on the Hub"):
        list(common_voice.records("hub", "fr"))
    write(place, {"train.tsv": table(("client_id", "path"), [])})
    with pytest.raises(DataError, match=r"train.tsv has no column 'sentence'"):
        list(common_voice.records(place, "fr"))


@pytest.mark.parametrize("translations", ["beside", "archive", "table", "by its script"])
def test_covost_joins_translations_by_clip(tmp_path, translations):
    place = shipped.common_voice(tmp_path / "cv")
    table_folder = shipped.covost(place if translations == "beside" else tmp_path / "covost")
    given = {
        "beside": None,
        "archive": pack(table_folder, tmp_path / "covost_v2.fr_en.tsv.tar.gz") if translations == "archive" else None,
        "table": table_folder / "covost_v2.fr_en.tsv",
        "by its script": table_folder,
    }[translations]
    if translations == "by its script":
        (table_folder / "covost_v2.fr_en.tsv").unlink()
        header = ("path", "sentence", "translation", "client_id")
        for split, part in shipped.CV_SPLITS.items():
            rows = [
                (f"common_voice_fr_{i}.mp3", SENTENCES[i].replace('"', '\\"'), shipped.ENGLISH[i], f"fr{i:02d}" * 4)
                for i in range(*part.indices(4))
            ]
            write(table_folder, {f"covost_v2.fr_en.{split}.tsv": table(header, rows)})
    found = checked(covost2.records(place, "fr", translations=given))
    english = ["Good morning, all.", 'Come, "she says".', "A nail of 5 inches.", "Goodbye."]
    assert {n: record.translation.text for n, record in found.items()} == dict(enumerate(english))
    assert {record.translation.language for record in found.values()} == {"en"}
    assert set(checked(covost2.records(place, "fr", translations=given, splits=["test"]))) == {3}


def test_what_is_wrong_with_covost_is_one_clear_line(tmp_path):
    place = shipped.common_voice(tmp_path / "cv")
    with pytest.raises(DataError, match=r"has no covost_v2.fr_en.tsv; get covost_v2.fr_en.tsv.tar.gz"):
        list(covost2.records(place, "fr"))
    with pytest.raises(DataError, match="CoVoST 2 from 'fr' has no 'de'"):
        list(covost2.records(place, "fr", target="de"))
    with pytest.raises(DataError, match="CoVoST 2 from English has no 'fr'"):
        list(covost2.records(place, "en", target="fr"))
    shipped.covost(place)
    write(place, {"validated.tsv": table(shipped.CV_HEADER_4, [["x"] * 8])})
    with pytest.raises(DataError, match=r"no clip of .* has a translation .* Common Voice release 4"):
        list(covost2.records(place, "fr"))


@pytest.mark.parametrize("packed", [False, True], ids=["folders", "archives"])
@pytest.mark.parametrize("variant", ["c", "t"])
def test_cvss_has_speech_on_both_sides(tmp_path, packed, variant):
    voice = shipped.common_voice(tmp_path / "cv")
    english = shipped.cvss(tmp_path, variant)
    if packed:
        voice = pack(tmp_path / "cv", tmp_path / "cv.tar.gz")
    else:
        english = (tmp_path / "inside").rename(tmp_path / f"cvss_{variant}_fr_en")
    found = checked(cvss.records(english, "fr", common_voice=voice))
    assert set(found) == {0, 1, 2, 3}
    for number, record in found.items():
        other = record.translation
        assert pitch_of(other.audio) == 350 + 100 * number
        assert other.speaker == ("cvss-c" if variant == "c" else record.speaker)
        assert (other.language, other.label_source) == ("en", "synthetic")
    assert found[2].translation.text == "a nail of five inches"
    covost = shipped.covost(tmp_path / "covost")
    written = checked(cvss.records(english, "fr", common_voice=voice, covost=covost, splits=["dev"]))
    assert {n: record.translation.text for n, record in written.items()} == {2: "A nail of 5 inches."}


def test_cvss_without_the_english_speech_of_a_clip_names_it(tmp_path):
    voice = shipped.common_voice(tmp_path / "cv")
    shipped.cvss(tmp_path)
    english = tmp_path / "inside"
    (english / "dev" / "common_voice_fr_2.mp3.wav").unlink()
    records = cvss.records(english, "fr", common_voice=voice, variant="c")
    report = prepare_corpus(records, tmp_path / "out")
    assert [failure.id for failure in report.failures] == ["common_voice_fr_2-cvss-c"]
    assert sum(report.num_records.values()) == 3


def test_what_is_wrong_with_cvss_is_one_clear_line(tmp_path):
    voice = shipped.common_voice(tmp_path / "cv")
    english = shipped.cvss(tmp_path)
    with pytest.raises(DataError, match="CVSS has no 'sw'"):
        list(cvss.records(english, "sw", common_voice=voice))
    with pytest.raises(DataError, match="give variant=c or variant=t"):
        list(cvss.records(tmp_path / "inside", "fr", common_voice=voice))
    english.write_bytes(english.read_bytes()[:-200])
    with pytest.raises(DataError, match="is cut short or damaged"):
        list(cvss.records(english, "fr", common_voice=voice))
