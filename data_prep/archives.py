"""A corpus as it was shipped: an extracted folder, tar archives, or a folder with archives in it, read the same way.

    tree = FileTree.at("downloads/train-clean-100.tar.gz")
    tree.texts("*.trans.txt")                                 # [ShippedFile("LibriSpeech/.../19-198.trans.txt", ...)]
    for file in tree.files("*.flac"): file.name, file.content # the file's bytes; a path where it lies in a folder
    for row, audio in with_audio(tree, ("*.flac",), rows_by_stem, stem): ...

An archive inside a folder counts as a folder of its name. Archives are streamed and nothing is extracted, so that a
corpus needs its disk space once and no member can be written anywhere; the price is that texts and audio are two
passes. Of several files of one name (an archive beside what was extracted from it) the first is read.
"""

import bz2
import gzip
import lzma
import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self, TypeVar, cast

from speechllm.data.records import Record
from speechllm.errors import DataError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
AUDIO = ("*.flac", "*.wav", "*.mp3", "*.ogg", "*.opus")
"Patterns of files that libsndfile reads."
_COMPRESSED: tuple[tuple[bytes, Callable[[BinaryIO], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ", lzma.LZMAFile),
)
"How a compressed file begins, and what reads it."
_BLOCK = 512
"Of a tar archive, in bytes; one of zeros marks its end."

NO_AUDIO_YET = b""
"In records whose transcript is known and whose audio is still to be read."

T = TypeVar("T")


@dataclass(frozen=True)
class ShippedFile:
    """A file of a corpus."""

    name: str
    "Where it lies below the root, with slashes."
    content: bytes | Path
    "Bytes of a member of an archive; a path otherwise."

    def lines(self) -> list[str]:
        """Return the lines of a UTF-8 text, split at line feeds alone; a .gz file is decompressed.

        Raises:
            DataError: it cannot be read, or is no such text.
        """
        try:
            content = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
            content = gzip.decompress(content) if self.name.endswith(".gz") else content
            text = content.decode("utf-8-sig")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise DataError(f"{self.name} cannot be read as UTF-8 text: {error}; download it again") from error
        return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


@dataclass(frozen=True)
class FileTree:
    """The files of a corpus below a folder or in an archive."""

    root: Path

    @classmethod
    def at(cls, source: str | Path) -> Self:
        """Return the tree of a folder or an archive.

        Raises:
            DataError: it is neither.
        """
        root = Path(source)
        if not root.is_dir() and not (root.is_file() and is_archive(root.name)):
            problem = f"expected a folder or one of {', '.join(ARCHIVES)}" if root.exists() else "nothing is there"
            raise DataError(f"{root} is no corpus: {problem}")
        return cls(root)

    def files(self, *patterns: str) -> Iterator[ShippedFile]:
        """Yield the files whose names end in one of the patterns ("*.wav", "clips/*"), folders in sorted order.

        Raises:
            DataError: an archive is cut short or is none.
        """
        if self.root.is_file():
            yield from _members(self.root, "", patterns)
            return
        for name in self._names():
            if is_archive(name):
                yield from _members(self.root / name, f"{name}/", patterns)
            elif _fits(name, patterns):
                yield ShippedFile(name, self.root / name)

    def texts(self, *patterns: str) -> list[ShippedFile]:
        """Return the files that fit and lie outside of archives; those in archives where there is none such."""
        if self.root.is_dir():
            outside = [ShippedFile(name, self.root / name) for name in self._names() if _fits(name, patterns)]
            if outside:
                return outside
        return list(self.files(*patterns))

    def _names(self) -> Iterator[str]:
        for folder, inner, names in os.walk(self.root):
            inner.sort()
            for name in sorted(names):
                yield (Path(folder) / name).relative_to(self.root).as_posix()


def is_archive(name: str) -> bool:
    """Return whether a file is an archive, by its name."""
    return name.lower().endswith(ARCHIVES)


def stem(name: str) -> str:
    """Return a file's name without folders and without its last suffix: "a/b.x.flac" -> "b.x"."""
    return PurePosixPath(name).stem


def with_audio(
    tree: FileTree, patterns: Collection[str], wanted: Mapping[str, T], key: Callable[[str], str]
) -> Iterator[tuple[T, bytes | Path]]:
    """Yield what is wanted with its audio in the order of the files, then what has none with the path of no file.

    So a transcript without audio becomes a record that `prepare_corpus` leaves out, counts and names.

    Args:
        tree: where the audio lies.
        patterns: which files are audio.
        wanted: what belongs to an audio, by key.
        key: from the name of a file to its key.
    """
    found: set[str] = set()
    for file in tree.files(*patterns):
        name = key(file.name)
        if name in wanted and name not in found:
            found.add(name)
            yield wanted[name], file.content
    for name, item in wanted.items():
        if name not in found:
            yield item, tree.root / name


def records_with_audio(
    tree: FileTree, patterns: Collection[str], wanted: Mapping[str, Record], key: Callable[[str], str]
) -> Iterator[Record]:
    """Yield records that were made of transcripts alone with their audio; see `with_audio`."""
    for record, audio in with_audio(tree, patterns, wanted, key):
        yield replace(record, audio=audio)


class AudioStash:
    """Audio by key, in any order; made by `stash_audio`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._paths: dict[str, Path] = {}
        self._copied: set[str] = set()

    def put(self, key: str, content: bytes | Path, folder: Path) -> None:
        """Keep audio; bytes go into `folder` under a number, whatever the key is."""
        if isinstance(content, Path):
            self._paths[key] = content
            return
        self._paths[key] = folder / f"{len(self._paths):09d}"
        self._paths[key].write_bytes(content)
        self._copied.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self._paths

    def __getitem__(self, key: str) -> bytes | Path:
        """Return the bytes or the path of an audio; the path of no file where there is none."""
        path = self._paths.get(key, self._root / key)
        # Copies are gone when the stash closes, records are not: they get the bytes.
        return path.read_bytes() if key in self._copied else path


@contextmanager
def stash_audio(
    tree: FileTree, patterns: Collection[str], keys: Collection[str], key: Callable[[str], str]
) -> Iterator[AudioStash]:
    """Make some audio of a tree reachable in any order: the parallel side of a corpus that is streamed.

    What lies in archives is copied to a temporary folder, which is gone when the context ends.
    """
    with tempfile.TemporaryDirectory(prefix="speechllm-audio-") as folder:
        stash = AudioStash(tree.root)
        for file in tree.files(*patterns):
            name = key(file.name)
            if name in keys and name not in stash:
                stash.put(name, file.content, Path(folder))
        yield stash


def _fits(name: str, patterns: Collection[str]) -> bool:
    return any(PurePosixPath(name).match(pattern) for pattern in patterns)


def _members(archive: Path, prefix: str, patterns: Collection[str]) -> Iterator[ShippedFile]:
    try:
        with _opened(archive) as content:
            counted = _Counted(content)
            with tarfile.open(fileobj=cast(BinaryIO, counted), mode="r|") as tar:
                while (member := tar.next()) is not None:
                    # tarfile remembers all members, which are millions here.
                    cast(Any, tar).members.clear()
                    name = prefix + member.name.removeprefix("./")
                    if member.isreg() and _fits(name, patterns):
                        handle = tar.extractfile(member)
                        assert handle is not None, "a regular file"
                        yield ShippedFile(name, handle.read())
                # A cut archive ends like a whole one for tarfile; a whole one has a block of zeros at its end.
                if counted.total < tar.offset + _BLOCK:
                    raise EOFError("its end is missing")
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"archive {archive} is cut short or damaged ({error}); download it again and compare its checksum"
        ) from error


@contextmanager
def _opened(archive: Path) -> Iterator[BinaryIO]:
    with archive.open("rb") as file:
        start = file.read(8)
        file.seek(0)
        for magic, reader in _COMPRESSED:
            if start.startswith(magic):
                yield reader(file)
                return
        yield file


class _Counted:
    """A stream that knows how much was read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.total = 0

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self.total += len(content)
        return content
