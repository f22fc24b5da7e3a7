"""A folder as a repository on the Hugging Face Hub: fetched whole, sent in one commit, or not at all.

    folder = fetch_repository("name/repository", ["*.json", "*.safetensors"], revision="v1.0")
    push_repository({"config.json": Path("out/config.json")}, "name/repository", private=True)

What arrives lies in the cache of huggingface_hub (`HF_HUB_CACHE`) and is read from there without network. The token is
that of `hf auth login` or `HF_TOKEN`. Everything that goes wrong on the way is a `CheckpointError` of one line.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    snapshot_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # of httpx or httpx2, as the release has it # pyright: ignore[reportPrivateImportUsage]
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects

from speechllm.errors import CheckpointError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
CARD_FILE = "README.md"
RepositoryKind: TypeAlias = Literal["model", "dataset"]
REASONS: dict[type[Exception], str] = {
    OfflineModeIsEnabled: "offline mode is on; unset HF_HUB_OFFLINE to reach the Hub",
    GatedRepoError: "it is gated; ask for access on its page, then run `hf auth login`, or set HF_TOKEN",
    RepositoryNotFoundError: (
        "there is no such repository, or it is private and this token does not open it; check the name, "
        "run `hf auth login`, or set HF_TOKEN"
    ),
    RevisionNotFoundError: "it has no such revision",
}
STATUS_REASONS = {
    401: "the Hub does not accept the token; run `hf auth login`, or set HF_TOKEN",
    403: "the token may not do this; use one with the right to write there",
    409: "somebody else changes the repository right now; try again",
    412: "somebody else changed the repository meanwhile; look at it and try again",
}


def fetch_repository(
    repo_id: str,
    patterns: Sequence[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    kind: RepositoryKind = "model",
) -> Path:
    """Download the files that match `patterns`, all of one commit, and return their folder.

    Raises:
        CheckpointError: no such repository or revision, no right to read it, or no network and not all in the cache.
    """
    at = f" at {revision}" if revision else ""
    with _one_line(f"{repo_id}{at} is neither a folder here nor in the cache, and cannot be fetched"):
        options: dict[str, Any] = {
            "revision": revision,
            "allow_patterns": list(patterns),
            "token": _checked(token),
            "repo_type": kind,
        }
        return Path(snapshot_download(repo_id, **options))


def list_repository(repo_id: str, *, revision: str | None = None, token: str | bool | None = None) -> list[str]:
    """Return the names of all files in a repository.

    Raises:
        CheckpointError: it cannot be read.
    """
    with _one_line(f"the files of {repo_id} cannot be listed"):
        return HfApi(token=_checked(token)).list_repo_files(repo_id, revision=revision)


def push_repository(
    files: Mapping[str, Path | bytes],
    repo_id: str,
    *,
    replaces: Sequence[str] = (),
    private: bool = True,
    token: str | None = None,
    kind: RepositoryKind = "model",
) -> str:
    """Send files in one commit, into a repository that is made if need be, and return the commit's address.

    Args:
        files: name in the repository -> local file or content.
        repo_id: "name/repository".
        replaces: patterns of what else goes in the same commit, so that old and new files never mix; the card stays.
        private: whether a new repository is private. If so, one that is public already is refused.
        token: of the Hub; None takes the one of `hf auth login` or HF_TOKEN.
        kind: model or dataset.

    Raises:
        CheckpointError: no token, no right, no network, or a public repository where a private one was asked for.
    """
    if not REPOSITORY.fullmatch(repo_id):
        raise CheckpointError(f"{repo_id!r} is no repository; name one as name/repository")
    where = f"cannot push to {repo_id}"
    with _one_line(where):
        found = _checked(token) or get_token()
        if not found:
            raise CheckpointError(f"{where}: there is no token; run `hf auth login`, or set HF_TOKEN")
        api = HfApi(token=found)
        api.create_repo(repo_id, private=private, exist_ok=True, repo_type=kind)
        there = api.model_info(repo_id) if kind == "model" else api.dataset_info(repo_id)
        if private and there.private is False:
            raise CheckpointError(f"{where}: it is public; ask for a public one (--public), or name another")
        names = [sibling.rfilename for sibling in there.siblings or ()]
        old = set(filter_repo_objects(names, allow_patterns=list(replaces))) if replaces else set()
        # Not upload_folder: with Xet it makes several commits, and after the first of them a reader finds half.
        commit = api.create_commit(
            repo_id,
            [
                *(CommitOperationDelete(name) for name in sorted(old - {*files, CARD_FILE})),
                *(CommitOperationAdd(name, content) for name, content in sorted(files.items())),
            ],
            commit_message="Upload dataset" if kind == "dataset" else "Upload checkpoint",
            parent_commit=there.sha,
            repo_type=kind,
        )
    return str(commit.commit_url)


def _checked(token: str | bool | None) -> str | bool | None:
    """Return the token without blanks around it; one that no header can carry would stand in the client's error."""
    used = token.strip() if isinstance(token, str) else get_token()
    if used is not None and not re.fullmatch(r"[!-~]+", used):
        raise CheckpointError("the token has signs that no token has; run `hf auth login`, or set HF_TOKEN")
    return used if isinstance(token, str) else token


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return what went wrong and what to do."""
    if type(error).__name__ == "IncompleteSnapshotError":  # newer releases have it
        return "only a part of it is in the cache, and the Hub cannot be reached; fetch it again with network"
    # The client wraps what it met on the way, for example in a RuntimeError that names the file.
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, HTTPError | OfflineModeIsEnabled):
        cause = cause.__cause__
    for kind, reason in REASONS.items():
        if isinstance(cause, kind):
            return reason
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        return STATUS_REASONS.get(status) or f"the Hub answered {status} ({_short(cause)}); try again later"
    if isinstance(cause, HTTPError | LocalEntryNotFoundError):
        return f"no connection to {constants.ENDPOINT} ({_short(cause)}); check the network and try again"
    return _short(cause)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
