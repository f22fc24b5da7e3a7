"""Files go to the Hub in one commit and come back as they were; what goes wrong is one line and leaves nothing half."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from speechllm.errors import CheckpointError
from speechllm.repository import fetch_repository, list_repository, push_repository
from tests.support.fake_hub import FakeHub, Fault

ROOT = Path(__file__).parents[2]
ALL = ["*.json", "*.safetensors", "*.md"]
FILES: dict[str, Path | bytes] = {
    "config.json": b"{}",
    "codec/config.json": b'{"kind": "x"}',
    "model.safetensors": bytes(range(256)) * 4096,
}
UNREACHABLE = "http://127.0.0.1:9"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_line(error: pytest.ExceptionInfo[CheckpointError], hub: FakeHub) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert hub.token not in message
    return message


def test_round_trip(hub: FakeHub):
    address = push_repository(FILES, "me/model")
    assert address.startswith(f"{hub.url}/me/model/commit/")
    assert hub.repositories["me/model"].private
    assert contents(fetch_repository("me/model", ALL)) == FILES
    assert set(list_repository("me/model")) == {*FILES, ".gitattributes"}
    assert set(contents(fetch_repository("me/model", ["*.json"]))) >= {"config.json", "codec/config.json"}


def test_it_is_one_commit_and_a_second_of_the_same_is_none(hub: FakeHub):
    push_repository(FILES, "me/model")
    push_repository(FILES, "me/model")
    assert len(hub.repositories["me/model"].commits) == 2, "the one that makes the repository, and ours"


def test_what_it_replaces_goes_in_the_same_commit_and_the_card_stays(hub: FakeHub):
    push_repository({**FILES, "README.md": b"# Mine", "notes.txt": b"kept"}, "me/model")
    push_repository({"config.json": b"[]"}, "me/model", replaces=ALL)
    assert hub.repositories["me/model"].files.keys() == {".gitattributes", "README.md", "notes.txt", "config.json"}
    assert len(hub.repositories["me/model"].commits) == 3


def test_revisions(hub: FakeHub):
    push_repository(FILES, "me/model")
    first = hub.repositories["me/model"].refs["main"]
    HfApi(endpoint=hub.url, token=hub.token).create_tag("me/model", tag="v1.0")
    push_repository({"config.json": b"[]"}, "me/model")
    assert contents(fetch_repository("me/model", ALL))["config.json"] == b"[]"
    for revision in ("v1.0", first):
        assert contents(fetch_repository("me/model", ALL, revision=revision)) == FILES
    with pytest.raises(CheckpointError, match=r"me/model at v9 .* no such revision") as error:
        fetch_repository("me/model", ALL, revision="v9")
    one_line(error, hub)


def test_offline_with_and_without_cache(hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    push_repository(FILES, "me/model")
    fetch_repository("me/model", ALL)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert contents(fetch_repository("me/model", ALL)) == FILES
    with pytest.raises(CheckpointError, match=r"me/other .* offline mode is on") as error:
        fetch_repository("me/other", ALL)
    one_line(error, hub)
    with pytest.raises(CheckpointError, match="cannot push to me/model: offline mode is on"):
        push_repository(FILES, "me/model")
    assert hub.requests == []


def test_a_hub_that_is_away(hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    push_repository(FILES, "me/model")
    fetch_repository("me/model", ALL)
    monkeypatch.setattr(constants, "ENDPOINT", UNREACHABLE)
    assert contents(fetch_repository("me/model", ALL)) == FILES
    with pytest.raises(CheckpointError, match=f"no connection to {UNREACHABLE} .* check the network") as error:
        fetch_repository("me/other", ALL)
    one_line(error, hub)
    with pytest.raises(CheckpointError, match=f"cannot push to me/model: no connection to {UNREACHABLE}") as error:
        push_repository(FILES, "me/model")
    one_line(error, hub)


def test_a_commit_that_breaks_off_changes_nothing(hub: FakeHub):
    push_repository(FILES, "me/model")
    before = dict(hub.repositories["me/model"].files)
    hub.faults.append(Fault("POST", "/commit/", after_bytes=200))
    changed = {**FILES, "model.safetensors": b"new" * 1000, "config.json": b"[1]"}
    with pytest.raises(CheckpointError, match="cannot push to me/model: no connection") as error:
        push_repository(changed, "me/model", replaces=ALL)
    one_line(error, hub)
    assert hub.repositories["me/model"].files == before
    push_repository(changed, "me/model", replaces=ALL)
    assert contents(fetch_repository("me/model", ALL)) == changed
    assert sum(line.startswith("PUT /lfs/") for line in hub.requests) == 2, "the weights are not sent a second time"


def test_two_who_push_at_once_do_not_mix(hub: FakeHub):
    push_repository(FILES, "me/model")
    hub.before_commit = lambda: hub.add("me/model", {"config.json": b"theirs"})
    with pytest.raises(CheckpointError, match="somebody else changed the repository meanwhile"):
        push_repository({"config.json": b"ours"}, "me/model")
    assert hub.repositories["me/model"].files == {"config.json": b"theirs"}


def test_a_download_that_breaks_off_goes_on_where_it_was(hub: FakeHub):
    megabyte = 1 << 20  # the client keeps what it has in pieces of 10 MB
    hub.add("me/model", {"model.safetensors": bytes(range(256)) * (12 * megabyte // 256)})
    hub.faults.append(Fault("GET", "/resolve/", after_bytes=11 * megabyte))
    assert contents(fetch_repository("me/model", ALL)) == hub.repositories["me/model"].files
    assert any(line.endswith(f"bytes={10 * megabyte}-") for line in hub.requests)


@pytest.mark.slow
def test_a_download_that_never_gets_through_is_one_line_and_a_later_one_works(hub: FakeHub):
    push_repository(FILES, "me/model")
    hub.faults.append(Fault("GET", "/resolve/.*safetensors", times=100))
    with pytest.raises(CheckpointError, match=r"no connection to http://127.* try again") as error:
        fetch_repository("me/model", ALL)
    one_line(error, hub)
    hub.faults.clear()
    assert contents(fetch_repository("me/model", ALL)) == FILES


KILLED = """
from speechllm.repository import fetch_repository
fetch_repository("me/model", ["*.json", "*.safetensors", "*.md"])
"""


def test_a_download_that_is_killed_is_not_taken_for_whole(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    push_repository(FILES, "me/model")
    hub.faults.append(Fault("GET", "/resolve/.*safetensors", after_bytes=1000, stalls=True))
    client = subprocess.Popen([sys.executable, "-c", KILLED], cwd=ROOT)  # the environment is the fixture's
    assert hub.stalled.wait(60)
    client.kill()
    assert client.wait(60) == -signal.SIGKILL
    hub.released.set()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="only a part of it is in the cache") as error:
        fetch_repository("me/model", ALL)
    one_line(error, hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert contents(fetch_repository("me/model", ALL)) == FILES


@pytest.mark.parametrize("repo_id", ["me/secret", "me/nothing"])
def test_private_and_missing_look_the_same_without_a_token(repo_id: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    push_repository(FILES, "me/secret")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(CheckpointError, match=r"no such repository, or it is private.*hf auth login") as error:
        fetch_repository(repo_id, ALL)
    one_line(error, hub)


def test_a_private_repository_opens_with_the_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    push_repository(FILES, "me/secret")
    monkeypatch.delenv("HF_TOKEN")
    assert contents(fetch_repository("me/secret", ALL, token=hub.token)) == FILES


def test_pushing_needs_a_token_that_may_write(hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    for repo_id, wanted in (("somebody/model", "right to write"), ("model", "name one as name/repository")):
        with pytest.raises(CheckpointError, match=wanted) as error:
            push_repository(FILES, repo_id)
        one_line(error, hub)
    with pytest.raises(CheckpointError, match="does not accept the token"):
        push_repository(FILES, "me/model", token="hf_of_yesterday")
    with pytest.raises(CheckpointError, match="signs that no token has") as error:
        push_repository(FILES, "me/model", token=f"{hub.token}\n{hub.token}")
    one_line(error, hub)
    monkeypatch.setenv("HF_TOKEN", f"{hub.token}\x01{hub.token}")
    for act in (lambda: push_repository(FILES, "me/model"), lambda: fetch_repository("me/model", ALL)):
        with pytest.raises(CheckpointError, match="signs that no token has") as error:
            act()
        one_line(error, hub)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(CheckpointError, match="there is no token; run `hf auth login`"):
        push_repository(FILES, "me/model")
    assert hub.repositories == {}


def test_what_should_be_private_is_not_sent_to_a_public_repository(hub: FakeHub):
    push_repository({"config.json": b"{}"}, "me/open", private=False)
    assert not hub.repositories["me/open"].private
    with pytest.raises(CheckpointError, match="me/open: it is public"):
        push_repository(FILES, "me/open")
    assert "model.safetensors" not in hub.repositories["me/open"].files
    push_repository(FILES, "me/open", private=False)
    assert hub.repositories["me/open"].files["model.safetensors"] == FILES["model.safetensors"]


def test_names_that_lead_out_are_refused(hub: FakeHub, tmp_path: Path):
    hub.add("me/evil", {"config.json": b"{}", "../../../../evil.json": b"{}"})
    with pytest.raises(CheckpointError, match=r"me/evil .* cannot be fetched") as error:
        fetch_repository("me/evil", ALL)
    one_line(error, hub)
    assert not list(tmp_path.rglob("evil.json"))
