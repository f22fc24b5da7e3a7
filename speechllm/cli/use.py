"""Commands that use a checkpoint: evaluate, transcribe, translate, speak, convert, resynthesize, info."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from speechllm.cli.console import console, results

Model = Annotated[str, typer.Option("--model", "-m", help="Checkpoint folder or Hub id.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
As = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Candidates = Annotated[
    int, typer.Option(min=1, help="Answers to draw when speaking; the one that the model hears best is kept.")
]
AllowUntrained = Annotated[
    bool, typer.Option("--allow-untrained", help="Also try tasks and languages that the model was not trained for.")
]
Vad = Annotated[
    Literal["energy", "silero"], typer.Option(help="How pauses in long audio are found; silero also does in noise.")
]
DEFAULT_MODEL = "runs/quickstart/checkpoint"


def load_system(
    model: str, device: str, revision: str | None = None, *, allow_untrained: bool = False, vad: Any = "energy"
) -> Any:
    """Load a checkpoint with a line that says so."""
    from transformers.utils import logging

    from speechllm.pipelines.system import SpeechSystem

    _check_revision(model, revision)
    logging.disable_progress_bar()
    with console.status(Text(f"loading {model}")):
        return SpeechSystem.from_pretrained(
            model, device=device, revision=revision, allow_untrained=allow_untrained, vad=vad
        )


def _check_revision(model: str, revision: str | None) -> None:
    if revision is not None and Path(model).exists():
        raise typer.BadParameter(f"--revision is about repositories on the Hub, and {model} is here; leave it out")


def _speech_parts(model: str, device: str, revision: str | None) -> Any:
    """Return what hears and makes sound: of a checkpoint, or of a folder that has no LM yet."""
    from speechllm.pipelines.speech_parts import SpeechParts
    from speechllm.processor import MANIFEST_FILE

    if Path(model).is_dir() and not (Path(model) / MANIFEST_FILE).exists():
        return SpeechParts.from_pretrained(model, device=device)
    return load_system(model, device, revision).parts


def _decoding(candidates: int) -> Any:
    from speechllm.generation.decoding_config import CandidatesConfig, DecodingConfig

    return DecodingConfig(candidates=CandidatesConfig(count=candidates) if candidates > 1 else None)


def _show(outputs: list[tuple[str, dict[str, Any]]], as_json: bool) -> None:
    for name, fields in outputs:
        if as_json:
            results.print(json.dumps({"input": name, **fields}, ensure_ascii=False))
        else:
            label = f"{name}: " if len(outputs) > 1 else ""
            results.print(f"{label}{fields['text']}")


def transcribe(
    audio: Annotated[list[Path], typer.Argument(help="Audio files.")],
    language: Annotated[str, typer.Option("--language", "-l", help="Language spoken: en, French, ...")] = "en",
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    device: Device = "cpu",
    vad: Vad = "energy",
    allow_untrained: AllowUntrained = False,
    as_json: As = False,
) -> None:
    """Write what is said in audio files.

    Example: speechllm transcribe recording.wav --language en --model runs/quickstart/checkpoint
    """
    system = load_system(model, device, revision, allow_untrained=allow_untrained, vad=vad)
    outputs = system.transcribe([str(path) for path in audio], language=language)
    _show([(str(p), {"text": o.text}) for p, o in zip(audio, outputs, strict=True)], as_json)


def translate(
    inputs: Annotated[list[str], typer.Argument(help="Audio files, or text with --text.")],
    source: Annotated[str, typer.Option("--from", "-s", help="Source language.")] = "en",
    target: Annotated[str, typer.Option("--to", "-t", help="Target language.")] = "fr",
    text: Annotated[bool, typer.Option("--text", help="The inputs are text, not files.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also speak: write a .wav here (one input).")] = None,
    voice: Annotated[Path | None, typer.Option(help="Three seconds of the voice to speak with.")] = None,
    consent: Annotated[bool, typer.Option(help="I state that the speaker of --voice agreed to its use.")] = False,
    candidates: Candidates = 4,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    device: Device = "cpu",
    vad: Vad = "energy",
    allow_untrained: AllowUntrained = False,
    as_json: As = False,
) -> None:
    """Translate speech (or text), into text and on request into speech.

    Example: speechllm translate hello.wav --from en --to fr --out bonjour.wav
    """
    if out is not None and len(inputs) != 1:
        raise typer.BadParameter(f"--out names one file, but {len(inputs)} inputs were given")
    system = load_system(model, device, revision, allow_untrained=allow_untrained, vad=vad)
    outputs = system.translate(
        inputs, source=source, target=target, text=text, speech=out is not None,
        voice=str(voice) if voice else None, consent=consent, decoding=_decoding(candidates),
    )  # fmt: skip
    _show([(name, {"text": o.text}) for name, o in zip(inputs, outputs, strict=True)], as_json)
    if out is not None:
        _save(outputs[0].audio, out)


def speak(
    text: Annotated[str, typer.Argument(help="What to say.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Audio file to write (.wav, .flac).")],
    language: Annotated[str, typer.Option("--language", "-l", help="Language of the text.")] = "en",
    voice: Annotated[Path | None, typer.Option(help="Three seconds of the voice to speak with.")] = None,
    consent: Annotated[bool, typer.Option(help="I state that the speaker of --voice agreed to its use.")] = False,
    watermark: Annotated[bool, typer.Option(help="Mark the speech as generated.")] = True,
    candidates: Candidates = 4,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    allow_untrained: AllowUntrained = False,
) -> None:
    """Say a text.

    Example: speechllm speak "turn on the lamp" --language en --out lamp.wav
    """
    system = load_system(model, device, revision, allow_untrained=allow_untrained)
    outputs = system.speak(
        [text], language=language, voice=str(voice) if voice else None, consent=consent, watermark=watermark, seed=seed,
        decoding=_decoding(candidates),
    )  # fmt: skip
    _save(outputs[0].audio, out)


def convert(
    audio: Annotated[Path, typer.Argument(help="The speech.")],
    voice: Annotated[Path, typer.Option(help="Three seconds of the voice to say it with.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Audio file to write (.wav, .flac).")],
    consent: Annotated[bool, typer.Option(help="I state that the speaker of --voice agreed to its use.")] = False,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
) -> None:
    """Say the same in another voice: the words and timing of one recording, the voice of another.

    Example: speechllm convert me.wav --voice you.wav --consent --out mine-in-your-voice.wav
    """
    from speechllm.pipelines.voices import convert_voice

    system = load_system(model, device, revision)
    (converted,) = convert_voice(system, [str(audio)], voice=str(voice), consent=consent, seed=seed)
    _save(converted, out)


def resynthesize(
    audio: Annotated[list[Path], typer.Argument(help="Recordings of speech.")],
    language: Annotated[str, typer.Option("--language", "-l", help="Language spoken: en, French, ...")] = "en",
    text: Annotated[list[str] | None, typer.Option(help="What is said, once for each recording.")] = None,
    whisper: Annotated[str | None, typer.Option(help="Whisper folder or Hub id that judges; needed beyond en.")] = None,
    judge: Annotated[bool, typer.Option(help="Let a recogniser judge how well it is understood.")] = True,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the audio of each stage.")] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Checkpoint, or folder with semantic_tokenizer/ codec/ acoustic/.")
    ] = DEFAULT_MODEL,
    revision: Revision = None,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    as_json: As = False,
) -> None:
    """Report what tokens alone lose: codec copy and semantic codes against the original.

    Do this first: it needs no LM, and no LM on these tokens will sound better.

    Example: speechllm resynthesize hello.wav --language en --text "hello there" --out heard/
    """
    from speechllm.audio import save_audio
    from speechllm.evaluation.judges import JudgeConfig, make_judges
    from speechllm.evaluation.resynthesis import resynthesize as run
    from speechllm.metrics.speaker import make_speaker_embedder
    from speechllm.tasks import language_code

    if out is not None and len({path.stem for path in audio}) < len(audio):
        raise typer.BadParameter(
            "two recordings have the same name and would share one file; rename one, or omit --out"
        )
    code = language_code(language)
    english = ("whisper" if whisper else "moonshine") if code == "en" and judge else "none"
    judges = make_judges(JudgeConfig(english=english, whisper=whisper if judge else None, device=device))
    chosen = judges.for_language(code)
    if judge and chosen is None:
        console.print(judges.why_none(code))
    report = run(
        _speech_parts(model, device, revision), [str(path) for path in audio], language=code, judge=chosen,
        embedder=make_speaker_embedder(), texts=text or None, seed=seed,
    )  # fmt: skip
    _show_stages(report, as_json)
    if out is not None:
        _make_folder(out)
        for stage in report.stages:
            for path, sound in zip(audio, stage.audios, strict=True):
                save_audio(sound, out / f"{path.stem}-{stage.name.replace(' ', '-')}.wav")
        console.print(f"audio of every stage: {out}")


def _make_folder(folder: Path) -> None:
    from speechllm.errors import AudioError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(f"cannot make folder {folder}: {error.strerror}; choose another --out") from error


def _show_stages(report: Any, as_json: bool) -> None:
    from dataclasses import asdict

    from rich.table import Table

    if as_json:
        for stage in report.stages:
            row = {"stage": stage.name, "reference": report.reference, "scores": [asdict(s) for s in stage.scores]}
            results.print(json.dumps(row, ensure_ascii=False))
        return
    table = Table("stage", "score", box=None)
    for stage in report.stages:
        for score in stage.scores:
            table.add_row(stage.name, str(score))
    results.print(table)
    results.print(f"reference: {report.reference}")


def _save(audio: Any, out: Path) -> None:
    from speechllm.audio import save_audio
    from speechllm.errors import AudioError

    if audio is None:
        raise AudioError("the model wrote no speech for this input; try again with another seed or a longer text")
    save_audio(audio, out)
    console.print(f"{audio.duration_seconds:.1f} s of speech")
    results.print(out)


def evaluate(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or Hub id.")],
    corpus: Annotated[Path, typer.Argument(help="Folder that `prepare` wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for report.json and report.html.")],
    config: Annotated[Path | None, typer.Option(help="YAML of evaluation settings.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    revision: Revision = None,
    device: Device = "cpu",
    allow_untrained: AllowUntrained = False,
) -> None:
    """Score a checkpoint on held-out data; writes JSON and a self-contained HTML report.

    Example: speechllm evaluate runs/quickstart/checkpoint runs/quickstart/corpus --out runs/report
    """
    from speechllm.config import apply_overrides, build_config, load_config
    from speechllm.evaluation.evaluate import EvaluationConfig, evaluate_checkpoint
    from speechllm.evaluation.report import write_report

    settings = (
        load_config(EvaluationConfig, config, overrides or [])
        if config
        else build_config(EvaluationConfig, apply_overrides({}, overrides or []))
    )
    system = load_system(model, device, revision, allow_untrained=allow_untrained)
    report = evaluate_checkpoint(system, corpus, settings)
    results.print(write_report(report, out))


def info(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or Hub id.")] = DEFAULT_MODEL,
    revision: Revision = None,
) -> None:
    """Say what a checkpoint holds: sizes, vocabulary, what it was trained for, tokenizers, stages.

    Example: speechllm info runs/quickstart/checkpoint
    """
    from speechllm.hub import describe_checkpoint

    _check_revision(model, revision)
    for key, value in describe_checkpoint(model, revision=revision).items():
        results.print(Text.assemble((f"{key:<20}", "bold"), value))  # a line each, however long: paths are not cut
