"""The page in a real browser without a head, offline: what a person sees, and that nothing is asked of anybody else."""

import gc
import os
import shutil
import socket
import threading
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn

from speechllm.audio import save_audio
from speechllm.demo.actions import Demo
from speechllm.demo.page import CONSENT, make_page
from speechllm.demo.server import demo_app
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.pipelines.system import SpeechSystem
from tests.support.tiny import tiny_checkpoint, tiny_speech

CHROMIUM = os.environ.get("SPEECHLLM_CHROMIUM") or shutil.which("chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here"),
    pytest.mark.slow,
    # gradio 6.31 with starlette 1.10 and pandas
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::UserWarning"),
    pytest.mark.filterwarnings("default::ResourceWarning"),
]
LOCAL = ("127.0.0.1", "localhost", "::1", "0.0.0.0")


@pytest.fixture(scope="module")
def asked():
    """Names of machines that this process asked for."""
    names, original = [], socket.getaddrinfo
    with pytest.MonkeyPatch.context() as patch:

        def noting(host, *args, **kwargs):
            names.append(host.decode() if isinstance(host, bytes) else host)
            return original(host, *args, **kwargs)

        patch.setattr(socket, "getaddrinfo", noting)
        yield names


@pytest.fixture(scope="module")
def address(tmp_path_factory, asked):
    system = SpeechSystem.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("page") / "tiny", acoustic=True))
    decoding = DecodingConfig(max_text_tokens=20, min_audio_tokens=30, max_audio_seconds=4.0)
    app = demo_app(make_page(Demo(system, decoding=decoding), name="tiny"))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    listening.close()
    with warnings.catch_warnings():
        # gradio leaves event loops open; they are collected here, so that no later test is blamed for them
        warnings.simplefilter("ignore", ResourceWarning)
        del app, server, thread
        gc.collect()


@pytest.fixture(scope="module")
def page(address, recording):
    from playwright.sync_api import sync_playwright

    microphone = (
        "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}",
    )  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *microphone])
        opened = browser.new_page(viewport={"width": 1280, "height": 1000})
        opened.requested, opened.faults = [], []
        opened.on("request", lambda request: opened.requested.append(request.url))
        opened.on("pageerror", lambda error: opened.faults.append(str(error)))
        opened.set_default_timeout(60_000)
        opened.goto(address)
        yield opened
        browser.close()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return save_audio(tiny_speech(2.0), tmp_path_factory.mktemp("audio") / "hello.wav")


def value(page, element):
    return page.locator(f"#{element} textarea")


def test_a_person_translates_speech_and_hears_it(page, recording):
    page.locator("#speech-in input[type=file]").set_input_files(recording)
    page.locator("#speech-in audio").first.wait_for(state="attached")
    page.get_by_label("translate and speak").first.check()
    page.locator("#speech-run").click()
    page.locator("#speech-verdict", has_text="watermark found").wait_for()
    assert value(page, "speech-transcript").input_value()
    assert value(page, "speech-translation").input_value()
    assert page.locator("#speech-tokens .audio").count() > 0
    assert page.locator("#speech-pictures img").count() == 2
    player = page.locator("#speech-out audio[src^=blob]")
    assert player.evaluate("player => player.duration") >= 2.4
    player.evaluate("player => player.play()")


def test_a_person_speaks_into_the_microphone(page):
    page.get_by_role("tab", name="Speech").click()
    heard = page.locator("#speech-in")
    heard.get_by_label("Clear").click()
    heard.get_by_label("Record audio").click()
    heard.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1500)
    heard.get_by_role("button", name="Stop", exact=True).first.click()
    heard.get_by_label("Download").wait_for()
    page.get_by_label("transcribe").first.check()
    page.locator("#speech-to").wait_for(state="hidden")
    page.locator("#speech-run").click()
    # The spectrogram of what was recorded, and none of speech: this task writes.
    page.wait_for_function("document.querySelectorAll('#speech-pictures img').length == 1")
    label, seconds = page.locator("#speech-pictures figcaption").inner_text().removesuffix(" s").split(", ")
    assert label == "recording"
    assert 0.5 <= float(seconds) <= 30.0
    assert value(page, "speech-transcript").input_value()
    assert value(page, "speech-translation").input_value() == ""


def test_a_voice_needs_the_box_to_be_ticked(page, recording):
    page.get_by_role("tab", name="Text").click()
    page.locator("#text-in textarea").fill("good morning")
    panel = page.get_by_role("tabpanel").filter(has=page.locator("#text-in"))
    panel.get_by_role("button", name="Voice").click()
    panel.get_by_label("of another recording").check()
    panel.locator("input[type=file]").last.set_input_files(recording)
    panel.locator("audio").first.wait_for(state="attached")
    page.locator("#text-run").click()
    page.get_by_text("state that its speaker agreed").wait_for()
    assert "watermark" not in page.locator("#text-verdict").inner_text()
    panel.get_by_label(CONSENT).check()
    page.locator("#text-run").click()
    page.locator("#text-verdict", has_text="watermark found").wait_for()


def test_stages_stand_side_by_side(page, recording):
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-in input[type=file]").set_input_files(recording)
    page.locator("#compare-in audio").first.wait_for(state="attached")
    page.locator("#compare-run").click()
    page.locator("#compare-pictures img").nth(2).wait_for()
    assert page.locator("#compare-pictures figcaption").all_inner_texts()[0].startswith("original, 2.0 s")


def test_nobody_else_is_asked_for_anything(page, address, asked):
    hosts = {urlsplit(url).hostname for url in page.requested if url.startswith("http")}
    assert hosts == {"127.0.0.1"}
    assert [name for name in asked if name not in (None, *LOCAL)] == []
    assert page.faults == []
    assert page.get_by_label("share").count() == page.locator("[aria-label*=hare]").count() == 0
    assert "default-src 'self'" in page.request.get(address).headers["content-security-policy"]
    assert page.request.get(f"{address}/gradio_api/file={Path(__file__).resolve()}").status in (403, 404)
