"""Decode the unified LM: prompts and grammars in, parts out, in batches, with guards and counters.

    decoder = LMDecoder(model, processor)
    tag = TaskTag.of("ASR AST", "en", "fr")
    decoded = decoder.decode(processor(tag, ["greeting.flac"]), [tag.output_modalities], DecodingConfig())
    decoded[0].segments          # [TextSegment("good morning"), TextSegment("bonjour")]
    DecodeReport.of(decoded)     # how many did not end by themselves, looped, were too long, stayed empty

Works with any stock transformers causal LM. Sequences of any prompt length and any grammar share a batch; what one
becomes does not depend on the others. Equal to `generate()` under `grammar.GrammarLogitsProcessor`, but faster: the
head is cut (heads.py), the cache is written in place (cache.py), finished sequences leave.
"""

from collections.abc import Generator, Sequence

import numpy as np
from torch import nn

from speechllm.errors import ConfigError, DataError
from speechllm.generation.beam import decode_with_beams
from speechllm.generation.decoded import Decoded
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.grammar import Grammar
from speechllm.generation.running_batch import DecodableLM, RunningBatch, decode_in_batches
from speechllm.processor import UnifiedProcessor


class LMDecoder:
    """Decodes one model with one processor. Holds no state between calls."""

    def __init__(self, model: nn.Module, processor: UnifiedProcessor, *, frame_rate: float | None = None):
        self.lm = DecodableLM(model, processor, frame_rate=frame_rate)

    @property
    def frame_rate(self) -> float:
        """Semantic codes a second, in Hz: what limits in seconds are counted with."""
        return self.lm.frame_rate

    @property
    def max_positions(self) -> int | None:
        """Ids that the model reads and writes at most, together; None: as many as memory holds."""
        return self.lm.max_positions

    def decode(
        self,
        prompts: Sequence[np.ndarray],
        grammars: Sequence[Grammar],
        config: DecodingConfig | None = None,
        places: Sequence[int] | None = None,
    ) -> list[Decoded]:
        """Decode every prompt under its grammar; results stand in the order of the prompts.

        Args:
            prompts: ids int64 [T] each, `<|next|>` at the end included (`UnifiedProcessor.encode_prompt`).
            grammars: the output modalities for each prompt (`TaskTag.output_modalities`).
            config: sampling, guards, batch size.
            places: numbers that seed the draws of each prompt, with the config's seed; None: as the config says.

        Raises:
            DataError: a prompt is empty, holds ids outside the vocabulary or fills the model's context.
        """
        config = config or DecodingConfig()
        if len(prompts) != len(grammars):
            raise DataError(f"{len(prompts)} prompts came with {len(grammars)} grammars; give one for each")
        if places is None:
            places = [0] * len(prompts) if config.same_draws else range(len(prompts))
        self.lm.check(prompts)
        run = decode_with_beams if config.num_beams > 1 else decode_in_batches
        with self.lm.evaluating():
            return run(self.lm, prompts, grammars, config, places)

    def stream(
        self, prompt: np.ndarray, grammar: Grammar, config: DecodingConfig | None = None
    ) -> Generator[int, None, Decoded]:
        """Yield the ids of one answer as they are written, closing marks included, and return what `decode` returns.

        Raises:
            ConfigError: beams, which know their text only at its end.
            DataError: see `decode`.
        """
        config = config or DecodingConfig()
        if config.num_beams > 1:
            raise ConfigError(f"num_beams is {config.num_beams}, and beams know their text only at its end; use 1")
        self.lm.check([prompt])
        self.lm.model.eval()
        batch = RunningBatch(self.lm, self.lm.forward(), [prompt], [grammar], config)
        for ids in batch.steps([0]):
            yield int(ids[0])
        return batch.decoded(0)
