"""How the unified LM is decoded: choice of ids, guards, beams, candidates.

DecodingConfig(num_beams=4, max_audio_seconds=20.0)
DecodingConfig(audio=SamplingConfig(temperature=0.8, top_k=50), seed=1)
"""

from dataclasses import dataclass, field

from speechllm.errors import ConfigError
from speechllm.generation.grammar import Limits
from speechllm.generation.sampling import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class CandidatesConfig:
    """Several spoken answers are drawn, and the one that the model itself hears best is kept (candidates.py)."""

    count: int = 4
    "Answers drawn for each input."
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(temperature=0.5))
    "How their semantic ids are chosen; they must differ, so not greedily."

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ConfigError(f"candidates.count is {self.count}, expected at least 2 to choose from")
        if self.sampling.is_greedy:
            raise ConfigError("candidates.sampling is greedy, so all candidates are the same; set a temperature")


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How to decode."""

    text: SamplingConfig = field(default_factory=SamplingConfig)
    "How text ids are chosen."
    audio: SamplingConfig = field(default_factory=SamplingConfig)
    "How semantic ids are chosen."
    num_beams: int = 1
    "Beams for the leading text parts (1: none). What follows them is decoded from the best beam."
    length_penalty: float = 1.0
    "Beam scores are divided by length to this power; 0 compares plain log probabilities."
    min_text_tokens: int = 0
    "A text part may not close before."
    max_text_tokens: int = 256
    "A text part must close after this many ids."
    min_audio_tokens: int = 1
    "An audio part may not close before: an empty one cannot be played."
    max_audio_seconds: float = 30.0
    "An audio part must close after this."
    loop_repeats: int = 4
    "A pattern that stands this many times in a row is a loop, once it also spans the lengths below."
    loop_text_tokens: int = 24
    "Span of a loop in text ids; 0 switches the guard off."
    loop_audio_seconds: float = 4.0
    "Span of a loop in audio (speech holds steady sounds and silence for a while); 0 switches the guard off."
    batch_size: int = 32
    "Sequences decoded together."
    seed: int = 0
    "For sampling. Sequence i draws from a generator of (seed, i): the same in any batch."
    same_draws: bool = False
    "Every sequence draws from (seed, 0), so that a list gives what its items give alone, and equal items the same."
    candidates: CandidatesConfig | None = None
    "Draw several spoken answers where their text is known (TTS, chains), in place of `audio`; None: one."

    def __post_init__(self) -> None:
        for name in ("num_beams", "max_text_tokens", "batch_size", "loop_repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("min_text_tokens", "min_audio_tokens", "loop_text_tokens", "loop_audio_seconds", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if self.max_audio_seconds <= 0:
            raise ConfigError(f"max_audio_seconds is {self.max_audio_seconds}, expected more than 0")
        if self.num_beams > 1 and not self.text.is_greedy:
            raise ConfigError(f"num_beams is {self.num_beams} and text is sampled; use one of the two")
        if self.candidates is not None and not self.text.is_greedy:
            raise ConfigError("candidates are compared by one text, but text is sampled; use one of the two")

    def require_greedy(self, decoder: str) -> None:
        """Raise ConfigError if sampling, beams or candidates are asked of a decoder that has none of them."""
        if not (self.text.is_greedy and self.audio.is_greedy) or self.num_beams > 1 or self.candidates is not None:
            raise ConfigError(f"the {decoder} decoder is greedy; drop sampling, beams and candidates")

    def limits(self, frame_rate: float) -> Limits:
        """Return the guards in ids."""
        max_audio = max(int(self.max_audio_seconds * frame_rate), 1)
        span = int(self.loop_audio_seconds * frame_rate)
        return Limits(
            min_tokens=(min(self.min_text_tokens, self.max_text_tokens), min(self.min_audio_tokens, max_audio)),
            max_tokens=(self.max_text_tokens, max_audio),
            loop_span=(self.loop_text_tokens, span),
            loop_period=(max(self.loop_text_tokens // 2, 1), max(span // 2, 1)),
            loop_repeats=self.loop_repeats,
        )
