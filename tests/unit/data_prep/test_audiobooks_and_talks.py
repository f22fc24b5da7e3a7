"""Audiobooks and talks: parts and splits, texts as written or as told, segments with their own sound."""

import pytest

from data_prep import gigaspeech, librispeech, libritts, mls, mustc
from speechllm.data.prepare import prepare_corpus, read_corpus
from speechllm.errors import DataError
from tests.support import shipped_corpora as shipped
from tests.support.shipped_corpora import pack, pitch_of, write


@pytest.mark.parametrize("form", ["folder", "above", "archive", "archives"])
def test_librispeech(tmp_path, form):
    folder = shipped.librispeech(tmp_path / "in")
    if form == "archives":
        for part in ("train-clean-100", "dev-clean", "test-other"):
            write(tmp_path / "one", {})
            (tmp_path / "one" / "LibriSpeech").mkdir(parents=True, exist_ok=True)
            (folder / part).rename(tmp_path / "one" / "LibriSpeech" / part)
            pack(tmp_path / "one", tmp_path / "downloads" / f"{part}.tar.gz")
            (tmp_path / "one" / "LibriSpeech" / part).rename(tmp_path / f"done-{part}")
    source = {
        "folder": folder,
        "above": tmp_path / "in",
        "archive": pack(tmp_path / "in", tmp_path / "all.tar.gz") if form == "archive" else None,
        "archives": tmp_path / "downloads",
    }[form]
    found = {record.id: record for record in librispeech.records(source)}
    assert len(found) == 6
    record = found["367-130-0001"]
    assert (record.split, record.text, record.speaker) == ("test-other", "it was sentence one", "367")
    assert pitch_of(record.audio) == 450
    assert found["19-198-0000"].split == "train"
    assert found["84-121-0000"].split == "validation-clean"
    only = list(librispeech.records(source, splits=["train-clean-100"], lower=False))
    assert [(r.id, r.text) for r in only] == [
        ("19-198-0000", "IT WAS SENTENCE ZERO"),
        ("19-198-0001", "IT WAS SENTENCE ONE"),
    ]


def test_one_part_of_librispeech_may_be_the_root(tmp_path):
    part = shipped.librispeech(tmp_path) / "dev-clean"
    assert {record.split for record in librispeech.records(part)} == {"validation-clean"}


def test_libritts(tmp_path):
    source = shipped.libritts(tmp_path)
    for place in (source, pack(source, tmp_path / "LibriTTS.tar.gz")):
        found = {record.id: record for record in libritts.records(place)}
        assert len(found) == 4
        record = found["61_70968_000000_000001"]
        assert (record.split, record.speaker) == ("test-clean", "61")
        assert record.text == '"Mister Bell", he said, number 1.'
        assert pitch_of(record.audio) == 400
    original = next(iter(libritts.records(source, splits=["train-clean-100"], text="original")))
    assert original.text == '"Mr. Bell", he said, no. 0.'


@pytest.mark.parametrize("suffix", [".flac", ".opus"])
def test_mls(tmp_path, suffix):
    source = shipped.mls(tmp_path, suffix)
    for place in (source, pack(tmp_path / "mls_french", tmp_path / f"mls_french_{suffix[1:]}.tar.gz")):
        found = {record.id: record for record in mls.records(place, "fr")}
        assert len(found) == 6
        record = found["fr-1474_2001_000001"]
        assert (record.split, record.speaker, record.text) == ("validation", "1474", "ses vers l'ont dit 1")
        assert pitch_of(record.audio) == 400


def test_several_languages_of_mls_are_told_apart(tmp_path):
    shipped.mls(tmp_path)
    german = shipped.mls(tmp_path / "more").rename(tmp_path / "mls_german")
    assert german.is_dir()
    assert len(list(mls.records(tmp_path, "de"))) == 6
    with pytest.raises(DataError, match=r"must have one train/transcripts.txt of mls_dutch, it has 0"):
        list(mls.records(tmp_path, "nl"))


def test_gigaspeech_cuts_segments_and_leaves_out_what_is_no_speech(tmp_path):
    source = shipped.gigaspeech(tmp_path)
    found = list(gigaspeech.records(source))
    heard = [(r.id, r.split, r.text) for r in found]
    assert heard == [
        ("POD25_S0000000", "train", "douglas is our guide, yes."),
        ("POD25_S0000002", "validation", "who is it?"),
        ("POD25_S0000004", "test", "a test"),
        ("YOU1_S0000000", "train", "douglas is our guide, yes."),
    ]
    assert [pitch_of(record.audio) for record in found[:3]] == [300, 500, 700]
    report = prepare_corpus(found, tmp_path / "out")
    assert [failure.id for failure in report.failures] == ["YOU1_S0000000"]
    assert "YOU1.opus, 0 to 0.5 s" in report.failures[0].reason
    large = gigaspeech.records(source, subset="L", splits=["train"], punctuation=False, lower=False)
    assert [record.text for record in large] == ["LARGE"]


def test_mustc_cuts_talks(tmp_path):
    source = shipped.mustc(tmp_path)
    found = list(mustc.records(source, "de"))
    assert [r.split for r in found] == ["train"] * 2 + ["validation"] * 2 + ["tst-COMMON"] * 2
    assert [pitch_of(record.audio) for record in found[:2]] == [300, 400]
    assert [(r.text, r.translation.text, r.speaker) for r in found[:2]] == [
        ("Thank you.", "Danke.", "spk.1"),
        ("This is a talk.", "Dies ist ein Vortrag.", "spk.1"),
    ]
    report = prepare_corpus(found, tmp_path / "out")
    assert len(list(read_corpus(tmp_path / "out", "tst-COMMON"))) == 2
    assert not report.failures


def cut_json(folder):
    path = shipped.gigaspeech(folder) / "GigaSpeech.json"
    path.write_bytes(path.read_bytes()[:-40])
    return lambda: gigaspeech.records(path.parent)


def json_of_another_form(folder):
    return lambda: gigaspeech.records(
        write(folder, {"GigaSpeech.json": '{"audios": [{"path": "a", "segments": [{}]}]}'})
    )


def path_that_leads_out(folder):
    path = shipped.gigaspeech(folder) / "GigaSpeech.json"
    path.write_text(path.read_text().replace("audio/podcast/", "../../podcast/"))
    return lambda: gigaspeech.records(path.parent)


def cut_transcript(folder):
    path = shipped.librispeech(folder) / "dev-clean" / "84" / "121" / "84-121.trans.txt"
    path.write_bytes(path.read_bytes()[:-22])
    return lambda: librispeech.records(folder)


def cut_translations(folder):
    path = shipped.mustc(folder) / "data" / "dev" / "txt" / "dev.de"
    path.write_text("Danke.\n")
    return lambda: mustc.records(folder / "en-de", "de")


def segments_without_wav(folder):
    path = shipped.mustc(folder) / "data" / "dev" / "txt" / "dev.yaml"
    path.write_text("- {duration: 1.0, offset: 0.0}\n")
    return lambda: mustc.records(folder / "en-de", "de")


def archive_of_libritts(folder):
    archive = pack(shipped.libritts(folder), folder / "dev-clean.tar.gz")
    archive.write_bytes(archive.read_bytes()[: len(archive.read_bytes()) // 2])
    return lambda: libritts.records(archive)


WRONG = {
    "a JSON that is cut short": (cut_json, r"GigaSpeech.json is cut short or no JSON"),
    "a JSON of another form": (
        json_of_another_form,
        "has an entry without sid, begin_time, end_time, text_tn, subsets",
    ),
    "a path out of the corpus": (path_that_leads_out, r"names '../../podcast/P0000/POD25.opus', which lies outside"),
    "no JSON": (lambda folder: lambda: gigaspeech.records(folder), "cannot read .*GigaSpeech.json: No such file"),
    "an unknown subset": (lambda folder: lambda: gigaspeech.records(folder, subset="XXL"), "did you mean 'XL'"),
    "a transcript cut short": (cut_transcript, r"84-121.trans.txt line 2 is '84-121-000', expected an id and its"),
    "an empty folder": (lambda folder: lambda: librispeech.records(folder), r"has no \*.trans.txt of train-clean-100"),
    "an archive cut short": (archive_of_libritts, "dev-clean.tar.gz is cut short or damaged"),
    "no text of the kind": (lambda folder: lambda: libritts.records(folder, text="norm"), "expected one of normalized"),
    "fewer translations": (
        cut_translations,
        "2 segments in dev.yaml, 2 lines in dev.en and 1 in dev.de: a file is cut",
    ),
    "segments without a file": (segments_without_wav, "dev.yaml segment 1 has no wav"),
    "no split": (lambda folder: lambda: mustc.records(folder, "de"), "has none of the folders train, dev"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_one_clear_line(tmp_path, what):
    make, message = WRONG[what]
    with pytest.raises(DataError, match=message) as error:
        list(make(tmp_path)())
    assert "\n" not in str(error.value)
