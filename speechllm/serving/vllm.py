"""The language model in vLLM, everything else as it is: our processor in front, the grammar as allowed ids.

    from vllm import LLM, SamplingParams

    llm = LLM("checkpoint", skip_tokenizer_init=True, dtype="float32", enable_prefix_caching=True)
    decoder = VLLMDecoder(llm, SamplingParams, checkpoint.processor, max_positions=2048)
    system = with_decoder(SpeechSystem(checkpoint), decoder)            # speechllm.serving.llama_cpp

A checkpoint's root is a stock causal LM, which vLLM loads as it is. Ids go in (`prompt_token_ids`) and ids come out.
One part of the answer is one call: `allowed_token_ids` holds what the grammar allows in that part, its closing mark is
the stop id, and the next part's prompt is everything so far, which vLLM's prefix cache has already read. All sequences
share these calls, so vLLM batches them. The guards against loops and endless output are applied to what comes
back, and cut it where `LMDecoder` would have closed the part: greedy, the ids are the same.

Written against vLLM's documented interface (docs.vllm.ai, `LLM.generate` and `SamplingParams`) and tested with a fake
that keeps to it; it was never run with vLLM itself.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speechllm.errors import DataError
from speechllm.generation.decoded import Decoded, decoded_from
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.grammar import CLOSING, FREE, LAST, MODALITIES, Grammar, Limits, Progress, head_rows
from speechllm.generation.running_batch import DEFAULT_FRAME_RATE
from speechllm.processor import UnifiedProcessor


@dataclass(eq=False)
class _Sequence:
    prompt: list[int]
    progress: Progress
    written: list[int] = field(default_factory=list)


class VLLMDecoder:
    """Decodes with a `vllm.LLM`.

    Args:
        llm: a `vllm.LLM`, made with skip_tokenizer_init=True.
        sampling_params: the class `vllm.SamplingParams`.
        processor: of the checkpoint that `llm` has loaded.
        max_positions: the model's context (vLLM's max_model_len).
    """

    def __init__(
        self, llm: Any, sampling_params: Callable[..., Any], processor: UnifiedProcessor, *, max_positions: int
    ):
        tokenizer = processor.semantic_tokenizer
        self.llm, self.sampling_params, self.processor = llm, sampling_params, processor
        self.frame_rate = tokenizer.frame_rate if tokenizer else DEFAULT_FRAME_RATE
        self.max_positions: int | None = max_positions
        self.rows = [head_rows(processor, modality) for modality in MODALITIES]

    def decode(
        self, prompts: Sequence[np.ndarray], grammars: Sequence[Grammar], config: DecodingConfig | None = None
    ) -> list[Decoded]:
        """Decode every prompt under its grammar.

        Raises:
            ConfigError: sampling, beams or candidates are asked for.
            DataError: a prompt fills the model's context.
        """
        config = config or DecodingConfig()
        config.require_greedy("vLLM")
        limits = config.limits(self.frame_rate)
        sequences = [
            _Sequence([int(i) for i in prompt], Progress([grammar], limits, self.processor.closing_ids))
            for prompt, grammar in zip(prompts, grammars, strict=True)
        ]
        for number, one in enumerate(sequences):
            if self._room(one) <= 0:
                raise DataError(f"prompt {number} has {len(one.prompt)} ids, the model reads {self.max_positions}")
        while running := [one for one in sequences if not one.progress.finished[0]]:
            self._write_parts(running, limits)
        # vLLM does not say how likely ids were among the legal ones.
        return [
            decoded_from(self.processor, np.array(one.written, np.int64), grammar, one.progress.stops[0], math.nan)
            for one, grammar in zip(sequences, grammars, strict=True)
        ]

    def _room(self, sequence: _Sequence) -> int:
        assert self.max_positions is not None, "set on construction"
        return self.max_positions - len(sequence.prompt) - len(sequence.written)

    def _write_parts(self, sequences: list[_Sequence], limits: Limits) -> None:
        """Let each sequence write the part that it is in."""
        wanted = []
        for one in sequences:
            modality = int(one.progress.modality[0])
            closing = int(one.progress.closing()[0])
            rows = self.rows[modality]
            state = FREE + LAST * (closing == self.processor.eos_id)
            wanted.append(
                self.sampling_params(
                    temperature=0.0,
                    max_tokens=min(limits.max_tokens[modality], self._room(one)),
                    min_tokens=limits.min_tokens[modality],
                    allowed_token_ids=rows.ids[rows.legal[state]].tolist(),
                    stop_token_ids=[closing],
                    ignore_eos=True,
                    detokenize=False,
                )
            )
        inputs = [{"prompt_token_ids": one.prompt + one.written} for one in sequences]
        for one, output in zip(sequences, self.llm.generate(inputs, wanted, use_tqdm=False), strict=True):
            self._take(one, [int(i) for i in output.outputs[0].token_ids])

    def _take(self, sequence: _Sequence, ids: list[int]) -> None:
        """Add a part up to where the grammar closes it."""
        progress, closing = sequence.progress, int(sequence.progress.closing()[0])
        # One id more than came: where the limit was reached, the grammar closes the part itself.
        for token in [*ids, closing]:
            if self._room(sequence) <= 0:
                progress.finished[0] = True
                progress.stops[0].append("too_long")
                return
            chosen = closing if progress.states()[0] % LAST == CLOSING else token
            sequence.written.append(chosen)
            progress.advance(np.array([chosen]))
            if chosen == closing:
                return
