"""The options of `generate()` that our pipelines take, and the decoding that they stand for.

    text_decoding(DecodingConfig(), {"num_beams": 4, "max_new_tokens": 60})
    speech_decoding(DecodingConfig(), {"do_sample": True, "temperature": 0.5}, frame_rate=25.0)

An option that would change nothing, or that is not known, is an error: silence would look like obedience.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from speechllm.errors import ConfigError
from speechllm.generation.decoding_config import CandidatesConfig, DecodingConfig
from speechllm.generation.sampling import SamplingConfig
from speechllm.registry import suggest

SAMPLING_OPTIONS = ("do_sample", "temperature", "top_k", "top_p", "seed", "max_new_tokens")
TEXT_OPTIONS = (*SAMPLING_OPTIONS, "num_beams", "length_penalty")


def known_options(task: str, known: Iterable[str], *given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options that were given, the later ones first; None is none.

    Raises:
        ConfigError: one is not known to the task.
    """
    options = {name: value for some in given for name, value in (some or {}).items() if value is not None}
    for name in options:
        if name not in (names := tuple(known)):
            raise ConfigError(
                f"unknown option {name!r} for {task}{suggest(name, names)} (known: {', '.join(sorted(names))})"
            )
    return options


def text_decoding(base: DecodingConfig, options: Mapping[str, Any]) -> DecodingConfig:
    """Return `base` with the options on top; those of sampling and length are about text."""
    changes = {name: options[name] for name in ("num_beams", "length_penalty", "seed") if name in options}
    if "max_new_tokens" in options:
        changes["max_text_tokens"] = options["max_new_tokens"]
    if (sampling := _sampling(options)) is not None:
        changes["text"] = sampling
    return dataclasses.replace(base, same_draws=True, **changes, **_candidates(options))


def speech_decoding(base: DecodingConfig, options: Mapping[str, Any], frame_rate: float) -> DecodingConfig:
    """Return `base` with the options on top; those of sampling and length are about semantic codes."""
    changes: dict[str, Any] = {"seed": options["seed"]} if "seed" in options else {}
    if "max_new_tokens" in options:
        changes["max_audio_seconds"] = options["max_new_tokens"] / frame_rate
    if (sampling := _sampling(options)) is not None:
        changes["audio"] = sampling
    return dataclasses.replace(base, same_draws=True, **changes, **_candidates(options))


def _sampling(options: Mapping[str, Any]) -> SamplingConfig | None:
    sampling = {name: options[name] for name in ("temperature", "top_k", "top_p") if name in options}
    if sampling and not options.get("do_sample", False):
        raise ConfigError(f"{', '.join(sampling)} changes nothing without sampling; pass do_sample=True as well")
    if "do_sample" not in options:
        return None
    return SamplingConfig(**{"temperature": 1.0, **sampling} if options["do_sample"] else {})


def _candidates(options: Mapping[str, Any]) -> dict[str, Any]:
    count = options.get("candidates", 1)
    return {"candidates": CandidatesConfig(count=count)} if count != 1 else {}
