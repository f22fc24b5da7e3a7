"""Shipped files: a folder and its archive give the same, and what is cut short is refused in one line."""

import tarfile

import pytest

from data_prep.archives import FileTree, records_with_audio, stash_audio, stem
from data_prep.choices import chosen_language, chosen_splits, record_split
from data_prep.segments import cut
from data_prep.tsv import tsv_rows, unquoted
from speechllm.audio import load_audio
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record
from speechllm.errors import DataError, TaskError
from tests.support.shipped_corpora import long_recording, pack, pitch_of, sound, write

FILES = {
    "a/list.txt": "x\ty\n",
    "a/0.wav": sound(".wav", 300),
    "b/1.wav": sound(".wav", 400),
    "b/note.md": "not asked for",
}
ARCHIVES = ["all.tar", "all.tar.gz", "all.tgz", "all.tar.bz2", "all.tar.xz"]


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "corpus", FILES)


def content_of(file):
    return file.content if isinstance(file.content, bytes) else file.content.read_bytes()


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_read_like_the_folder(folder, tmp_path, name):
    trees = [FileTree.at(folder), FileTree.at(pack(folder, tmp_path / name))]
    for patterns in (("*.wav",), ("a/*",), ("*.txt", "*.md")):
        found = [[(file.name, content_of(file)) for file in tree.files(*patterns)] for tree in trees]
        assert found[0] == found[1]
        assert len(found[0]) == 2


def test_an_archive_in_a_folder_counts_as_a_folder(folder, tmp_path):
    outer = tmp_path / "downloads"
    pack(folder, outer / "part.tar.gz")
    write(outer, {"list.txt": "outside\n"})
    tree = FileTree.at(outer)
    assert [file.name for file in tree.files("*.wav")] == ["part.tar.gz/a/0.wav", "part.tar.gz/b/1.wav"]
    # Texts are looked for outside first, so that no archive is read for them in vain.
    assert [file.lines() for file in tree.texts("*.txt")] == [["outside"]]
    (outer / "list.txt").unlink()
    assert [file.lines() for file in tree.texts("*.txt")] == [["x\ty"]]


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_an_archive_that_is_cut_short_is_one_clear_line(folder, tmp_path, name, share):
    archive = pack(folder, tmp_path / name)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=rf"archive .*{name} is cut short or damaged .*download it again") as error:
        list(FileTree.at(archive).files("*.wav"))
    assert "\n" not in str(error.value)


def test_an_archive_that_is_cut_between_two_members_is_not_taken_for_whole(folder, tmp_path):
    archive = pack(folder, tmp_path / "all.tar")
    with tarfile.open(archive) as tar:
        boundary = tar.getmembers()[2].offset
    archive.write_bytes(archive.read_bytes()[:boundary])
    with pytest.raises(DataError, match="its end is missing"):
        list(FileTree.at(archive).files("*.wav"))


def test_members_that_lead_out_or_are_links_are_never_written(tmp_path):
    (tmp_path / "secret.wav").write_bytes(sound(".wav", 300))
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "secret.wav", "../../outside.wav")
        link = tarfile.TarInfo("link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    with stash_audio(FileTree.at(archive), ("*.wav",), {"outside", "link"}, stem) as stash:
        assert "outside" in stash
        assert "link" not in stash
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("packed", [False, True])
def test_a_transcript_without_audio_is_counted_and_named(folder, tmp_path, packed):
    tree = FileTree.at(pack(folder, tmp_path / "all.tar.gz") if packed else folder)
    wanted = {name: Record(name, "train", "en", f"text {name}", b"") for name in ("1", "gone", "0")}
    found = list(records_with_audio(tree, ("*.wav",), wanted, stem))
    assert [record.id for record in found] == ["0", "1", "gone"]
    assert [pitch_of(record.audio) for record in found[:2]] == [300, 400]
    report = prepare_corpus(found, tmp_path / "out")
    assert report.num_records == {"train": 2}
    assert [failure.id for failure in report.failures] == ["gone"]
    assert "no audio file at" in report.failures[0].reason


@pytest.mark.parametrize("packed", [False, True])
def test_a_stash_gives_audio_in_any_order_also_after_it_is_closed(folder, tmp_path, packed):
    tree = FileTree.at(pack(folder, tmp_path / "all.tar.gz") if packed else folder)
    with stash_audio(tree, ("*.wav",), {"0", "1"}, stem) as stash:
        audios = [stash["1"], stash["0"]]
        nothing = stash["gone"]
    assert [pitch_of(audio) for audio in audios] == [400, 300]
    assert not nothing.exists()


@pytest.mark.parametrize(("place", "problem"), [("nowhere", "nothing is there"), ("file.zip", "expected a folder or")])
def test_what_is_no_corpus_is_refused(tmp_path, place, problem):
    (tmp_path / "file.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=problem):
        FileTree.at(tmp_path / place)


def test_a_quotation_mark_swallows_no_lines():
    lines = ["path\tsentence", 'a.mp3\tUn clou de 5" ici', 'b.mp3\t"Bonjour', 'c.mp3\tfin"']
    rows = list(tsv_rows(lines, "t.tsv", ("path", "sentence")))
    assert [row["path"] for row in rows] == ["a.mp3", "b.mp3", "c.mp3"]
    assert rows[1]["sentence"] == '"Bonjour'


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ('"""Viens"" dit-elle."', '"Viens" dit-elle.'),
        ('""Viens"" dit-elle.', '"Viens" dit-elle.'),
        ('""Viens""', '"Viens"'),
        ('"Viens"', "Viens"),
        ('Un clou de 5" ici', 'Un clou de 5" ici'),
        ('"Oui" et "non"', '"Oui" et "non"'),
        ('"', '"'),
        ("", ""),
    ],
)
def test_marks_of_writers_are_undone(written, sentence):
    assert unquoted(written) == sentence


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "t.tsv is empty"),
        (["path\tsentense"], r"no column 'sentence'; did you mean 'sentense'\? \(columns: path, sentense\)"),
        (["path\tsentence", "a\tb\tc"], "line 2 has more cells than there are columns: 2"),
        (["path\tsentence", "a\tb", "c"], "line 3 has fewer cells than there are columns: the file is cut short"),
    ],
)
def test_a_broken_table_is_one_clear_line(lines, message):
    with pytest.raises(DataError, match=message):
        list(tsv_rows(lines, "t.tsv", ("path", "sentence")))


def test_choices_are_checked():
    assert chosen_splits(None, ("train", "dev"), "X") == ("train", "dev")
    assert chosen_splits(["dev", "dev"], ("train", "dev"), "X") == ("dev",)
    with pytest.raises(DataError, match="X has no split 'dve'; did you mean 'dev'"):
        chosen_splits(["dve"], ("train", "dev"), "X")
    with pytest.raises(DataError, match=r"X has no 'sw' \(known: en, fr\)"):
        chosen_language("sw", ("fr", "en"), "X")
    with pytest.raises(TaskError, match="unknown language 'frnech'; did you mean 'French'"):
        chosen_language("frnech", ("fr", "en"), "X")
    names = ("train-clean-100", "dev", "dev-other", "test-clean", "validated")
    assert [record_split(name) for name in names] == [
        "train", "validation", "validation-other", "test-clean", "validated",
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".opus", ".mp3"])
def test_stretches_are_cut_where_they_are(tmp_path, suffix):
    path = tmp_path / f"talk{suffix}"
    path.write_bytes(long_recording(suffix, [300, 400, 500]))
    spans = [(1.05, 1.45), (0.05, 0.45), (0.55, 0.95), (1.2, 9.0), (7.0, 8.0)]
    *found, beyond, nowhere = cut(path, spans)
    assert [pitch_of(audio) for audio in found] == [500, 300, 400]
    assert [load_audio(audio).duration_seconds for audio in found] == pytest.approx([0.4] * 3)
    assert load_audio(beyond).duration_seconds == pytest.approx(0.3, abs=0.1)
    assert nowhere.name == f"talk{suffix}, 7 to 8 s"


def test_stretches_of_what_is_not_there_are_paths_that_say_so(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    for name in ("gone.wav", "broken.wav"):
        (path,) = cut(tmp_path / name, [(0, 1)])
        assert path == tmp_path / f"{name}, 0 to 1 s"
