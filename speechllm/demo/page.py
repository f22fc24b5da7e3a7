"""The page: three tabs over `Demo`'s functions.

    page = make_page(Demo(system), languages=("en", "fr"))

    Speech     record or upload; transcript, translation, tokens, speech with its watermark's verdict
    Text       the same from a text
    Compare    a recording, its codec copy, its semantic codes made sound again: what each stage loses

Nothing is fetched from elsewhere: fonts are the system's own, Gradio's statistics are off.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import gradio as gr
import numpy as np

from speechllm.audio import Audio
from speechllm.demo.actions import DRAWN, OTHER, VOICES, Demo, Shown
from speechllm.demo.offers import SPEECH_TASKS, TEXT_TASKS, Steps
from speechllm.demo.tokens import token_html
from speechllm.errors import SpeechLLMError
from speechllm.evaluation.plots import spectrogram
from speechllm.tasks import LANGUAGE_NAMES, language_code

CONSENT = "I state that the speaker of this voice agreed to its use."
WATERMARK = "Speech made here carries an inaudible watermark that says so."
SOURCES: list[Literal["upload", "microphone"]] = ["upload", "microphone"]
BUTTONS: list[Literal["download", "share"] | gr.Button] = ["download"]
"Not `share`: that one sends the sound to somebody's server."
MAX_COMPARED = 6
"Places for sounds in the tab Compare."


def make_page(demo: Demo, *, languages: Sequence[str] = ("en", "fr"), name: str = "speechllm") -> gr.Blocks:
    """Return the page.

    Args:
        demo: what it does.
        languages: that stand first in the lists: from, to.
        name: of the checkpoint, for the heading.
    """
    first, second = (language_code(one) for one in (languages[0], languages[-1]))
    with gr.Blocks(title=f"{name} · speechllm", analytics_enabled=False) as page:
        gr.Markdown(f"## {name}\n{WATERMARK if demo.system.can_speak else 'This checkpoint writes text only.'}")
        if demo.offers.tasks(SPEECH_TASKS):
            with gr.Tab("Speech"):
                _task_tab(demo, demo.speech, SPEECH_TASKS, (first, second), is_speech=True)
        if demo.offers.tasks(TEXT_TASKS):
            with gr.Tab("Text"):
                _task_tab(demo, demo.text, TEXT_TASKS, (first, second), is_speech=False)
        if demo.system.can_speak:
            with gr.Tab("Compare"):
                _compare_tab(demo, first)
    return page


def _task_tab(
    demo: Demo, action: Callable[..., Shown], tasks: dict[str, Steps], languages: tuple[str, str], *, is_speech: bool
) -> None:
    kind = "speech" if is_speech else "text"
    with gr.Row():
        with gr.Column():
            given = (
                gr.Audio(label="Recording", type="filepath", sources=SOURCES, buttons=BUTTONS, elem_id="speech-in")
                if is_speech
                else gr.Textbox(label="Text", lines=3, elem_id="text-in")
            )
            speaking = demo.system.can_speak
            choices = demo.offers.tasks(tasks)
            task = gr.Radio(choices, value=choices[min(2, len(choices) - 1)] if is_speech else choices[0], label="Task")
            source, target = _language_lists(demo, tasks, task, languages, kind)
            voices = VOICES if is_speech else (DRAWN, OTHER)
            with gr.Accordion("Voice", open=False, visible=speaking):
                voice = gr.Radio(list(voices), value=DRAWN, label="Voice to speak with")
                prompt = gr.Audio(
                    label="Another recording: three seconds of the voice", type="filepath", buttons=BUTTONS
                )
                consent = gr.Checkbox(label=CONSENT, value=False, elem_id=f"{kind}-consent")
            run = gr.Button("Run", variant="primary", elem_id=f"{kind}-run")
        with gr.Column():
            transcript = gr.Textbox(label="Transcript", elem_id=f"{kind}-transcript", visible=is_speech)
            translation = gr.Textbox(label="Translation", elem_id=f"{kind}-translation")
            spoken = gr.Audio(
                label="Speech", interactive=False, buttons=BUTTONS, elem_id=f"{kind}-out", visible=speaking
            )
            verdict = gr.Markdown(elem_id=f"{kind}-verdict")
            pictures = gr.HTML(elem_id=f"{kind}-pictures")
            gr.Markdown("Tokens that the model wrote")
            tokens = gr.HTML(elem_id=f"{kind}-tokens")

    def answer(*inputs: Any) -> tuple[Any, ...]:
        shown = _guarded(lambda: action(*inputs))
        stream = "".join(token_html(demo.system.processor, output) for output in shown.outputs)
        sounds = {"recording": shown.source, "speech": shown.audio}
        return (
            shown.transcript,
            shown.translation,
            _playable(shown.audio),
            shown.verdict,
            "".join(_picture(label, audio) for label, audio in sounds.items()),
            stream,
        )

    run.click(
        answer,
        [given, task, source, target, voice, prompt, consent],
        [transcript, translation, spoken, verdict, pictures, tokens],
        concurrency_limit=1,
        api_visibility="private",
    )


def _compare_tab(demo: Demo, language: str) -> None:
    gr.Markdown("What each stage keeps of a recording: the ceiling of everything that this checkpoint says.")
    with gr.Row():
        recording = gr.Audio(label="Recording", type="filepath", sources=SOURCES, buttons=BUTTONS, elem_id="compare-in")
        chosen = gr.Dropdown(**_among(demo.offers.languages, language), label="Language")
    run = gr.Button("Compare", variant="primary", elem_id="compare-run")
    places = [
        gr.Audio(visible=False, interactive=False, buttons=BUTTONS, elem_id=f"compare-out-{number}")
        for number in range(MAX_COMPARED)
    ]
    pictures = gr.HTML(elem_id="compare-pictures")

    def answer(path: str | None, language: str) -> list[Any]:
        found = list(_guarded(lambda: demo.compare(path, language)).items())[:MAX_COMPARED]
        shown = [gr.Audio(value=_playable(audio), label=name, visible=True) for name, audio in found]
        hidden = [gr.Audio(value=None, visible=False)] * (MAX_COMPARED - len(shown))
        return [*shown, *hidden, "".join(_picture(name, audio) for name, audio in found)]

    run.click(answer, [recording, chosen], [*places, pictures], concurrency_limit=1, api_visibility="private")


def _language_lists(
    demo: Demo, tasks: dict[str, Steps], task: gr.Radio, languages: tuple[str, str], kind: str
) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Return the lists From and To, which hold what the chosen task was trained for."""

    def fitting(name: str, source: str, target: str) -> tuple[dict[str, Any], dict[str, Any]]:
        start = _among(demo.offers.sources(tasks[name]), source, languages[0])
        codes = demo.offers.targets(tasks[name], start["value"])
        # Out of sight it keeps some languages: the page may still send one while the list goes.
        return start, {**_among(codes or demo.offers.languages, target, languages[1]), "visible": bool(codes)}

    first, second = fitting(str(task.value), *languages)
    with gr.Row():
        source = gr.Dropdown(**first, label="From", elem_id=f"{kind}-from")
        target = gr.Dropdown(**second, label="To", elem_id=f"{kind}-to")

    def update(name: str, source: str, target: str) -> tuple[Any, Any]:
        start, end = fitting(name, source, target)
        return gr.update(**start), gr.update(**end)

    for choice in (task, source):
        choice.input(update, [task, source, target], [source, target], api_visibility="private")
    return source, target


def _among(codes: Sequence[str], *wanted: str) -> dict[str, Any]:
    """Return languages to choose from, by name, and the one that is chosen: the first that is wanted and there."""
    choices = [(LANGUAGE_NAMES.get(code, code), code) for code in codes]
    return {"choices": choices, "value": next((code for code in (*wanted, *codes) if code in codes), None)}


def _playable(audio: Audio | None) -> tuple[int, np.ndarray] | None:
    if audio is None:
        return None
    return audio.sample_rate, np.round(np.clip(audio.samples, -1, 1) * 32767).astype(np.int16)


def _picture(label: str, audio: Audio | None) -> str:
    if audio is None:
        return ""
    seconds = f"{label}, {audio.duration_seconds:.1f} s"
    return (
        f'<figure style="margin: 4px 0"><img src="{spectrogram(audio)}" alt="spectrogram: {label}" '
        f'style="width: 100%; height: 90px"><figcaption style="font-size: 12px">{seconds}</figcaption></figure>'
    )


def _guarded(action: Callable[[], Any]) -> Any:
    """Show what a user did wrong as one line on the page; everything else is a fault of ours, for the log."""
    try:
        return action()
    except SpeechLLMError as error:
        raise gr.Error(str(error), print_exception=False) from error
