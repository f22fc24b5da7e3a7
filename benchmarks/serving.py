"""`speechllm serve` under many clients: is every answer there and nobody else's, how long it takes, in what memory.

    python -m benchmarks.serving runs/quickstart/checkpoint runs/quickstart/corpus --clients 32 --seconds 60

The server is a process of its own; the clients are threads with OpenAI's own client, on the same cores. Each client has
a recording and a text of its own; it transcribes, translates and speaks in turn and compares each answer with what the
checkpoint gives for that input alone, before any load:

    own        the very answer: text equal; speech equal in length, no sample further away than rounding
    rounded    not quite, but nearer to its own answer than to any other client's: a batch rounds otherwise than a
               single input, and where two ids all but tie another one may win
    crossed    another client's answer, or nearer to one
    lost       an error, or no answer

Afterwards the server is killed with requests under way and started again on the same port.
"""

import difflib
import io
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import openai
import psutil
import soundfile
import typer

from benchmarks.machine import RESULTS, measure_machine
from benchmarks.measure import table, write_text
from speechllm.audio import encode_flac, load_audio
from speechllm.data.prepare import read_corpus
from speechllm.pipelines.system import SpeechSystem

KINDS = ("transcription", "translation", "speech")
VERDICTS = ("own", "rounded", "crossed", "lost")
SAME_SOUND = 0.02
"Largest difference of samples that counts as rounding."
NAME = "bench"


@dataclass(frozen=True, eq=False)
class Item:
    """What one client sends, and the answers that it expects."""

    recording: bytes
    seconds: float
    language: str
    target: str
    text: str
    answers: dict[str, str | np.ndarray]
    "By kind: text, or samples."


@dataclass(eq=False)
class Tally:
    """What the clients saw. Filled by many threads."""

    verdicts: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in KINDS})
    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    errors: Counter[str] = field(default_factory=Counter)
    audio_seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, verdict: str, seconds: float, audio_seconds: float) -> None:
        """Count one answer."""
        with self.lock:
            self.verdicts[kind][verdict] += 1
            self.seconds[kind].append(seconds)
            self.audio_seconds += audio_seconds

    def add_error(self, kind: str, error: Exception) -> None:
        """Count a request without an answer."""
        with self.lock:
            self.verdicts[kind]["lost"] += 1
            self.errors[f"{type(error).__name__}: {error}"[:120]] += 1


class Server:
    """`speechllm serve` as a process, and its memory."""

    def __init__(self, checkpoint: Path, port: int, num_threads: int):
        command = [sys.executable, "-m", "speechllm.cli", "serve", str(checkpoint), "--port", str(port), f"name={NAME}"]
        start = time.perf_counter()
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": str(num_threads)}
        )
        assert self.process.stderr is not None
        self.port, self.log = 0, []
        for line in self.process.stderr:
            if found := re.search(r"http://[\d.]+:(\d+)/v1", line):
                self.port = int(found[1])
                break
            self.log.append(line)
        assert self.port, f"the server ended: {''.join(self.log)}"
        self.start_seconds = time.perf_counter() - start
        threading.Thread(target=self._read_log, daemon=True).start()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def memory_mib(self) -> float:
        """Return its resident set."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def client(self, timeout: float = 120.0) -> openai.OpenAI:
        """Return a client that asks once and does not try again."""
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0, timeout=timeout
        )


def make_items(checkpoint: Path, corpus: Path, count: int) -> list[Item]:
    """Return inputs whose answers all differ, with the answers that the checkpoint gives for each alone."""
    system, items, seen = SpeechSystem.from_pretrained(checkpoint), [], set()
    for record in read_corpus(corpus, "test"):
        if record.audio is None or record.translation is None or record.text in seen:
            continue
        audio = load_audio(record.audio)
        target = record.translation.language
        answers: dict[str, str | np.ndarray] = {
            "transcription": system.transcribe([audio], language=record.language)[0].text,
            "translation": system.translate([audio], source=record.language, target=target)[0].text,
        }
        said = system.speak([record.text], language=record.language)[0].audio
        if said is None or not seen.isdisjoint(texts := {record.text, *map(str, answers.values())}):
            continue
        seen |= texts
        answers["speech"] = said.samples
        items.append(Item(encode_flac(audio), audio.duration_seconds, record.language, target, record.text, answers))
        if len(items) == count:
            return items
    raise typer.BadParameter(f"the corpus has only {len(items)} test records with answers of their own, not {count}")


def ask(client: openai.OpenAI, kind: str, item: Item) -> str | np.ndarray:
    """Send one request and return its text or samples."""
    file = ("a.flac", item.recording)
    if kind == "speech":
        content = client.audio.speech.create(
            model=NAME, input=item.text, voice="default", response_format="wav", extra_body={"language": item.language}
        ).read()
        return soundfile.read(io.BytesIO(content), dtype="float32")[0]
    if kind == "transcription":
        return client.audio.transcriptions.create(model=NAME, file=file, language=item.language).text
    languages = {"language": item.language, "to": item.target}
    return client.audio.translations.create(model=NAME, file=file, extra_body=languages).text


def judge(kind: str, number: int, answer: str | np.ndarray, items: Sequence[Item]) -> str:
    """Return own, rounded or crossed."""
    if _is_same(answer, items[number].answers[kind]):
        return "own"
    closeness = [_closeness(answer, item.answers[kind]) for item in items]
    return "rounded" if int(np.argmax(closeness)) == number else "crossed"


def _is_same(answer: Any, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return answer == wanted
    return len(answer) == len(wanted) and float(np.abs(answer - wanted).max()) <= SAME_SOUND


def _closeness(answer: Any, other: Any) -> float:
    if isinstance(other, str):
        return difflib.SequenceMatcher(None, answer, other).ratio()
    a, b = (_levels(samples) for samples in (answer, other))
    length = max(len(a), len(b))
    padded = [np.pad(levels, ((0, length - len(levels)), (0, 0))) for levels in (a, b)]
    return -float(np.abs(padded[0] - padded[1]).mean())


def _levels(samples: np.ndarray) -> np.ndarray:
    """Return a coarse log spectrogram [T, 16] at 16 kHz, 32 ms a frame."""
    frames = samples[: len(samples) // 512 * 512].reshape(-1, 512)
    power = np.abs(np.fft.rfft(frames, axis=1))[:, :256].reshape(len(frames), 16, 16).mean(-1)
    return np.log10(np.maximum(power, 1e-3)) + 3


def put_under_load(server: Server, items: Sequence[Item], seconds: float) -> tuple[Tally, list[float], float]:
    """Let one client for each item ask for `seconds`; return what they saw, memory over time, and how long it took."""
    tally, memory = Tally(), []
    start = time.perf_counter()
    stop = start + seconds

    def run(number: int) -> None:
        with server.client() as client:
            turn = number
            while time.perf_counter() < stop:
                kind, turn = KINDS[turn % len(KINDS)], turn + 1
                asked = time.perf_counter()
                try:
                    answer = ask(client, kind, items[number])
                except openai.OpenAIError as error:
                    tally.add_error(kind, error)
                    continue
                took = time.perf_counter() - asked
                audio = len(answer) / 16_000 if isinstance(answer, np.ndarray) else items[number].seconds
                tally.add(kind, judge(kind, number, answer, items), took, audio)

    clients = [threading.Thread(target=run, args=(number,)) for number in range(len(items))]
    for client in clients:
        client.start()
    while any(client.is_alive() for client in clients):
        memory.append(server.memory_mib())
        time.sleep(0.5)
    return tally, memory, time.perf_counter() - start


def kill_and_restart(server: Server, checkpoint: Path, items: Sequence[Item], num_threads: int) -> tuple[Server, str]:
    """Kill the server with requests under way, start another on its port, and return it with what was seen."""
    outcomes: Counter[str] = Counter()

    def run(item: Item) -> None:
        with server.client() as client:
            try:
                ask(client, "transcription", item)
                outcomes["answered"] += 1
            except openai.APIConnectionError:
                outcomes["told that the connection broke"] += 1

    clients = [threading.Thread(target=run, args=(item,)) for item in items]
    for client in clients:
        client.start()
    time.sleep(0.1)
    server.process.kill()
    for client in clients:
        client.join()
    server.process.wait()
    again = Server(checkpoint, server.port, num_threads)
    with again.client() as client:
        same = sum(judge(kind, i, ask(client, kind, items[i]), items) == "own" for i in range(4) for kind in KINDS)
    told = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    return again, (
        f"Killed with {len(items)} requests under way ({told}), the server took requests again "
        f"{again.start_seconds:.1f} s after its start on the same port, and {same} of {4 * len(KINDS)} answers "
        "were the very ones from before."
    )


def latency_rows(tally: Tally) -> list[list[str]]:
    """Return a row for each kind of request, and one for all."""
    rows = []
    for kind in (*KINDS, "all"):
        seconds = np.array(
            tally.seconds[kind] if kind in KINDS else [one for found in tally.seconds.values() for one in found]
        )
        counts = tally.verdicts[kind] if kind in KINDS else sum(tally.verdicts.values(), Counter())
        quantiles = [f"{value:.2f}" for value in np.quantile(seconds, (0.5, 0.95, 0.99, 1.0))] if len(seconds) else []
        rows.append([kind, *(str(counts[name]) for name in VERDICTS), *(quantiles or ["-"] * 4)])
    return rows


def describe(tally: Tally, memory: Sequence[float], took: float, before: float) -> str:
    """Return the results as markdown."""
    answered = sum(len(found) for found in tally.seconds.values())
    third = max(len(memory) // 3, 1)
    parts = [
        table(["request", *VERDICTS, "p50, s", "p95, s", "p99, s", "longest, s"], latency_rows(tally)),
        f"{answered / took:.1f} answers a second and {tally.audio_seconds / took:.1f} seconds of speech heard or "
        f"spoken each second, over {took:.0f} s.",
        f"Memory of the server: {before:,.0f} MiB before, at most {max(memory):,.0f} MiB under load; "
        f"{max(memory[:third]):,.0f} MiB at most in the first third, {max(memory[-third:]):,.0f} MiB in the last.",
    ]
    if tally.errors:
        parts.append("Errors: " + "; ".join(f"{count} x {name}" for name, count in tally.errors.most_common(5)))
    return "\n\n".join(parts)


def main(
    checkpoint: Annotated[Path, typer.Argument(help="Of the quickstart, or another that can speak.")],
    corpus: Annotated[Path, typer.Argument(help="Prepared corpus with a test split and translations.")],
    clients: Annotated[int, typer.Option(help="At the same time.")] = 32,
    seconds: Annotated[float, typer.Option(help="How long they ask.")] = 60.0,
    num_threads: Annotated[int, typer.Option(help="Of the server's model.")] = 2,
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = RESULTS / "serving.md",
    quick: Annotated[bool, typer.Option(help="Measure the machine shortly.")] = False,
) -> None:
    """Put a server under load and write what its clients saw."""
    # Translations keep their method in OpenAI's client, though it is marked as old.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    machine = measure_machine(num_threads=num_threads, quick=quick)
    items = make_items(checkpoint, corpus, clients)
    server = Server(checkpoint, 0, num_threads)
    try:
        with server.client() as client:  # the first request of each kind wakes everything up
            for kind in KINDS:
                ask(client, kind, items[0])
        before = server.memory_mib()
        load = os.getloadavg()[0]
        tally, memory, took = put_under_load(server, items, seconds)
        server, restarted = kill_and_restart(server, checkpoint, items, num_threads)
        server.process.terminate()
        server.process.wait()
    finally:
        server.process.kill()
    mean = sum(item.seconds for item in items) / len(items)
    text = "\n\n".join(
        [
            "# Serving under load",
            f"`python -m benchmarks.serving CHECKPOINT CORPUS --clients {clients} --seconds {seconds:g} "
            f"--num-threads {num_threads}`",
            machine.describe(),
            f"{clients} clients, each with a recording (mean {mean:.1f} s) and a text of its own, transcribe, "
            "translate and speak in turn without a pause. Clients and server share the cores; load average before: "
            f"{load:.1f}. `own`, `rounded`, `crossed` and `lost` are explained in `benchmarks/serving.py`.",
            describe(tally, memory, took, before),
            restarted,
        ]
    )
    typer.echo(write_text(out, text))


if __name__ == "__main__":
    typer.run(main)
