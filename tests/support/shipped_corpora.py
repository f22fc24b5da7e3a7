"""Corpora in miniature, in the files and formats of the real ones; a sound is a tone that tells whose it is."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from speechllm.audio import AudioSource, load_audio

FORMATS = {
    ".wav": ("WAV", "PCM_16", 16_000),
    ".flac": ("FLAC", "PCM_16", 16_000),
    ".mp3": ("MP3", "MPEG_LAYER_III", 16_000),
    ".ogg": ("OGG", "VORBIS", 16_000),
    ".opus": ("OGG", "OPUS", 16_000),
}


def tone(pitch: int, seconds: float = 0.3, sample_rate: int = 16_000) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * sample_rate)) / sample_rate)


def sound(suffix: str, pitch: int, seconds: float = 0.3) -> bytes:
    """Return an audio file of one tone."""
    kind, subtype, rate = FORMATS[suffix]
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(pitch, seconds, rate), rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def pitch_of(audio: AudioSource) -> int:
    """Return the tone of an audio, to the nearest 50 Hz."""
    heard = load_audio(audio)
    spectrum = np.abs(np.fft.rfft(heard.samples * np.hanning(heard.num_samples)))
    return round(spectrum.argmax() * heard.sample_rate / heard.num_samples / 50) * 50


def write(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def pack(folder: Path, archive: Path) -> Path:
    """Put what is in a folder into an archive; its suffix says how."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    suffix = archive.suffix.lstrip(".").replace("tgz", "gz")
    with tarfile.open(archive, "w" if suffix == "tar" else f"w:{suffix}") as tar:  # type: ignore[call-overload]
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                tar.add(path, path.relative_to(folder).as_posix())
    return archive


def table(header: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    return "".join("\t".join(row) + "\n" for row in ([header] if header is not None else []) + list(rows))


CV_SENTENCES = ("Bonjour à tous.", '"""Viens"" dit-elle."', 'Un clou de 5" ici.', "Au revoir.")
CV_HEADER_4 = ("client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender", "accent")
CV_HEADER_17 = (
    "client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes", "age", "gender",
    "accents", "variant", "locale", "segment",
)  # fmt: skip


def common_voice(
    folder: Path,
    locale: str = "fr",
    header: Sequence[str] = CV_HEADER_4,
    sentences: Sequence[str] = CV_SENTENCES,
) -> Path:
    """Write a release: clip i has a tone of 300 + 100 i Hz and is said by speaker i; 0 and 1 train, 2 dev, 3 test."""
    values = [
        {
            "client_id": f"{locale}{i:02d}" * 4,
            "path": f"common_voice_{locale}_{i}.mp3",
            "sentence": text,
            "locale": locale,
            "up_votes": "2",
            "down_votes": "0",
        }
        for i, text in enumerate(sentences)
    ]
    rows = [[value.get(name, "") for name in header] for value in values]
    files: dict[str, bytes | str] = {"validated.tsv": table(header, rows)}
    files |= {f"{name}.tsv": table(header, rows[part]) for name, part in CV_SPLITS.items()}
    files |= {f"clips/{value['path']}": sound(".mp3", 300 + 100 * i) for i, value in enumerate(values)}
    return write(folder / locale, files)


CV_SPLITS = {"train": slice(0, 2), "dev": slice(2, 3), "test": slice(3, 4)}
ENGLISH = ("Good morning, all.", 'Come, \\"she says\\".', "A nail of 5 inches.", "Goodbye.")


def covost(folder: Path, pair: str = "fr_en") -> Path:
    splits = ("train", "train_covost", "dev", "test")
    rows = [(f"common_voice_{pair[:2]}_{i}.mp3", text, splits[i]) for i, text in enumerate(ENGLISH)]
    rows.append((f"common_voice_{pair[:2]}_0.mp3.gone", "Out of the published split.", "test_covost"))
    return write(folder, {f"covost_v2.{pair}.tsv": table(("path", "translation", "split"), rows)})


def cvss(folder: Path, variant: str = "c") -> Path:
    """Write CVSS as it is shipped: English of clip i has a tone of 350 + 100 i Hz."""
    inside = folder / "inside"
    names = ("train", "train", "dev", "test")
    texts = ("good morning all", "come she says", "a nail of five inches", "goodbye")
    for name in dict.fromkeys(names):
        rows = [(f"common_voice_fr_{i}.mp3", texts[i]) for i in range(4) if names[i] == name]
        write(inside, {f"{name}.tsv": table(None, rows)})
    write(inside, {f"{names[i]}/common_voice_fr_{i}.mp3.wav": sound(".wav", 350 + 100 * i) for i in range(4)})
    return pack(inside, folder / f"cvss_{variant}_fr_en_v1.0.tar.gz")


VOX_HEADER = ("id", "raw_text", "normalized_text", "speaker_id", "split", "gender", "is_gold_transcript", "accent")


def voxpopuli(folder: Path, on_hub: bool = False) -> Path:
    """Write VoxPopuli's French with its interpretation into English, as its scripts do or as it lies on the Hub."""
    ids = [f"20120101-0900-PLENARY-{i}-fr_20120101-09:0{i}:00_0" for i in range(4)]
    splits = ("train", "train", "dev", "test")
    rows = [
        (id, 'Il a dit "non.' if i == 1 else f"Phrase {i}.", f"phrase {i}", f"1{i}", splits[i], "male", "True", "None")
        for i, id in enumerate(ids)
    ]
    top = folder / ("data/fr" if on_hub else "transcribed_data/fr")
    for name in dict.fromkeys(splits):
        chosen = [row for row in rows if row[4] == name]
        write(top, {f"asr_{name}.tsv": table(VOX_HEADER, chosen)})
    if on_hub:
        for name in dict.fromkeys(splits):
            part = {f"{name}_part_0/{ids[i]}.wav": sound(".wav", 300 + 100 * i) for i in range(4) if splits[i] == name}
            pack(write(folder / "packing" / name, part), top / name / f"{name}_part_0.tar.gz")
        return folder / "data"
    write(top, {f"2012/{id}.ogg": sound(".ogg", 300 + 100 * i) for i, id in enumerate(ids)})
    pairs = [(id, id.replace("-fr_", "-en_")) for id in ids]
    header = ("src_id", "src_text", "src_speaker_id", "tgt_id", "tgt_text")
    rows = [(a, f"Phrase {i}.", f"1{i}", b, "a sentence" if i == 0 else "") for i, (a, b) in enumerate(pairs)]
    write(top / "en", {"s2s.tsv": table(header, rows)})
    write(top / "en", {f"2012/{b}.ogg": sound(".ogg", 350 + 100 * i) for i, (_, b) in enumerate(pairs)})
    return folder / "transcribed_data"


FLEURS_TEXTS = {"fr_fr": ("Le roi est là.", 'Elle dit "oui".'), "en_us": ("The king is here.", 'She says "yes".')}


def fleurs(folder: Path, config: str, base_pitch: int, readings: Sequence[int] = (0, 1, 1)) -> Path:
    """Write a language of FLEURS: reading j is of sentence readings[j], in each split."""
    top = folder / "data" / config
    for split in ("train", "dev", "test"):
        rows, audio = [], {}
        for j, sentence in enumerate(readings):
            text, name = FLEURS_TEXTS[config][sentence], f"{split}{config[:2]}{j}.wav"
            plain = text.lower().replace(".", "").replace('"', "")
            rows.append((f"{1500 + sentence}", name, text, plain, " ".join(plain), "4800", "FEMALE"))
            audio[f"{split}/{name}"] = sound(".wav", base_pitch + 100 * j)
        write(top, {f"{split}.tsv": table(None, rows)})
        pack(write(folder / "packing" / config / split, audio), top / "audio" / f"{split}.tar.gz")
    return folder / "data"


def librispeech(folder: Path) -> Path:
    """Write three parts; utterance n of a chapter has a tone of 300 + 100 n Hz, and 50 more in test-other."""
    chapters = {"train-clean-100": "19-198", "dev-clean": "84-121", "test-other": "367-130"}
    for part, chapter in chapters.items():
        place, more = f"LibriSpeech/{part}/{chapter.replace('-', '/')}", 50 * (part == "test-other")
        lines = [f"{chapter}-{n:04d} IT WAS SENTENCE {['ZERO', 'ONE'][n]}" for n in range(2)]
        files: dict[str, bytes | str] = {f"{place}/{chapter}.trans.txt": "\n".join(lines) + "\n"}
        files |= {f"{place}/{chapter}-{n:04d}.flac": sound(".flac", 300 + 100 * n + more) for n in range(2)}
        write(folder, files)
    return folder / "LibriSpeech"


def libritts(folder: Path) -> Path:
    for part, chapter in {"train-clean-100": "103_1241", "test-clean": "61_70968"}.items():
        for n in range(2):
            name = f"{part}/{chapter.replace('_', '/')}/{chapter}_000000_{n:06d}"
            write(
                folder / "LibriTTS",
                {
                    f"{name}.original.txt": f'"Mr. Bell", he said, no. {n}.',
                    f"{name}.normalized.txt": f'"Mister Bell", he said, number {n}.',
                    f"{name}.wav": sound(".wav", 300 + 100 * n),
                },
            )
    return folder / "LibriTTS"


def mls(folder: Path, suffix: str = ".opus") -> Path:
    for split, book in {"train": "10065_10039", "dev": "1474_2001", "test": "2114_1656"}.items():
        top = f"mls_french/{split}"
        rows = [(f"{book}_{n:06d}", f"ses vers l'ont dit {n}") for n in range(2)]
        files: dict[str, bytes | str] = {f"{top}/transcripts.txt": table(None, rows)}
        for n, (id, _) in enumerate(rows):
            files[f"{top}/audio/{book.replace('_', '/')}/{id}{suffix}"] = sound(suffix, 300 + 100 * n)
        write(folder, files)
    return folder / "mls_french"


def long_recording(suffix: str, pitches: Sequence[int], seconds: float = 0.5) -> bytes:
    kind, subtype, rate = FORMATS[suffix]
    buffer = io.BytesIO()
    samples = np.concatenate([tone(pitch, seconds, rate) for pitch in pitches])
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def gigaspeech(folder: Path) -> Path:
    """Write GigaSpeech with one podcast of five half seconds, and one recording whose audio is not there."""
    texts = ("DOUGLAS IS OUR GUIDE <COMMA> YES <PERIOD>", "<MUSIC>", "WHO IS IT <QUESTIONMARK>", "LARGE", "A TEST")
    subsets = (["{XL}", "{XS}"], ["{XL}", "{XS}"], ["{XL}", "{DEV}"], ["{XL}", "{L}"], ["{TEST}"])
    segments = [
        {
            "sid": f"POD25_S{n:07d}", "speaker": "N/A", "begin_time": 0.5 * n, "end_time": 0.5 * (n + 1),
            "text_tn": text, "subsets": subset,
        }
        for n, (text, subset) in enumerate(zip(texts, subsets, strict=True))
    ]  # fmt: skip
    podcast = {
        "title": "N/A", "url": "https://example.org", "path": "audio/podcast/P0000/POD25.opus", "aid": "POD25",
        "source": "podcast", "speaker": "N/A", "duration": 2.5, "segments": segments,
    }  # fmt: skip
    missing = [{**segments[0], "sid": "YOU1_S0000000", "speaker": "SPK7"}]
    youtube = {**podcast, "path": "audio/youtube/Y0000/YOU1.opus", "aid": "YOU1", "segments": missing}
    content = {"dataset": "GigaSpeech", "language": "EN", "version": "v1.0.0", "audios": [podcast, youtube]}
    audio = long_recording(".opus", [300, 400, 500, 600, 700])
    files = {"GigaSpeech.json": json.dumps(content, indent=2), "audio/podcast/P0000/POD25.opus": audio}
    return write(folder / "GigaSpeech", files)


def mustc(folder: Path) -> Path:
    for name in ("train", "dev", "tst-COMMON"):
        top = f"en-de/data/{name}"
        lines = [
            f"- {{duration: 0.4, offset: {0.05 + 0.5 * n}, rW: 4, uW: 0, speaker_id: spk.1, wav: ted_{name}.wav}}"
            for n in range(2)
        ]
        write(
            folder,
            {
                f"{top}/txt/{name}.yaml": "\n".join(lines) + "\n",
                f"{top}/txt/{name}.en": "Thank you.\nThis is a talk.\n",
                f"{top}/txt/{name}.de": "Danke.\nDies ist ein Vortrag.\n",
                f"{top}/wav/ted_{name}.wav": long_recording(".wav", [300, 400]),
            },
        )
    return folder / "en-de"


def ted_text(folder: Path) -> dict[str, str]:
    """Write a text of TED with its markup, as IWSLT ships it, the French side compressed."""
    english = "<url>http://www.ted.com/talks/1</url>\nGood morning.\nThe red house.\n\n"
    french = "<url>http://www.ted.com/talks/1</url>\nBonjour.\nLa maison rouge.\nSeul.\n"
    write(folder, {"train.tags.en-fr.en": english, "train.tags.en-fr.fr.gz": gzip.compress(french.encode(), mtime=0)})
    return {"en": str(folder / "train.tags.en-fr.en"), "fr": str(folder / "train.tags.en-fr.fr.gz")}
