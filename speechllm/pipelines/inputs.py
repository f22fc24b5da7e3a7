"""What a pipeline takes as audio, beyond `AudioSource`: addresses, bare arrays at the model's rate, decoded columns.

    read_audio("https://example.org/hello.wav", 16_000)
    read_audio(dataset[0]["audio"], 16_000)                # a dict, or the decoder that `datasets` gives

An address is fetched whole, within limits; nothing but the file itself is sent for, and no token goes with it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from huggingface_hub import get_session
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # pyright: ignore[reportPrivateImportUsage]

from speechllm.audio import Audio, load_audio
from speechllm.errors import AudioError
from speechllm.pipelines.speech_parts import AUDIO_TYPES

MAX_URL_BYTES = 512 * 2**20
"Larger files are refused: fetch them yourself."
URL_SECONDS = 60.0
"How long a server may say nothing."


def is_one_audio(inputs: Any) -> bool:
    """Say whether this is one audio, and not several."""
    return isinstance(inputs, (*AUDIO_TYPES, torch.Tensor)) or hasattr(inputs, "get_all_samples")


def each(inputs: Any) -> Iterator[Any]:
    """Yield the items of a list, a generator, a column, or a dataset with nothing but length and numbers."""
    if hasattr(inputs, "__iter__") or not hasattr(inputs, "__getitem__"):
        yield from inputs
    else:
        yield from (inputs[number] for number in range(len(inputs)))


def read_audio(source: Any, sample_rate: int) -> Audio:
    """Return any form of audio that a pipeline takes.

    Args:
        source: `AudioSource`, a URL, an array or tensor [S] or [C, S] at `sample_rate`, or a decoder of `datasets`.
        sample_rate: of bare arrays, Hz.

    Raises:
        AudioError: it cannot be fetched, or is no audio.
    """
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return load_audio(_fetch(source))
    if (decode := getattr(source, "get_all_samples", None)) is not None:
        decoded = decode()
        source, sample_rate = decoded.data, decoded.sample_rate
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        source = {"array": source, "sampling_rate": sample_rate}
    return load_audio(source)


def _fetch(url: str) -> bytes:
    content = bytearray()
    try:
        with get_session().stream("GET", url, follow_redirects=True, timeout=URL_SECONDS) as response:
            if response.status_code != 200:
                raise AudioError(f"{url} cannot be fetched: the server answered {response.status_code}")
            for part in response.iter_bytes():
                content += part
                if len(content) > MAX_URL_BYTES:
                    raise AudioError(f"{url} has more than {MAX_URL_BYTES / 1e6:.0f} MB; fetch it and pass the file")
    except OfflineModeIsEnabled as error:
        raise AudioError(f"{url} cannot be fetched: offline mode is on; unset HF_HUB_OFFLINE") from error
    except HTTPError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise AudioError(f"{url} cannot be fetched: {reason}") from error
    return bytes(content)
