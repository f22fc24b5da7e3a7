"""The language model in llama.cpp, everything else as it is: our processor in front, our grammar over the logits.

    decoder = LlamaCppDecoder.load(Path("lm.gguf"), checkpoint.processor)
    system = with_decoder(SpeechSystem(checkpoint), decoder)
    system.transcribe(["hello.wav"])[0].text

`LlamaCppDecoder` takes what `LMDecoder` takes and gives what it gives. At each step it looks only at the logits of the
ids that the grammar allows, with the same guards, so under greedy decoding the ids are those of `LMDecoder` on the
same weights (up to rounding, where two logits all but tie). One sequence at a time, greedy, no beams, no candidates.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int

from speechllm.errors import CheckpointError, DataError, MissingDependencyError
from speechllm.generation.decoded import Decoded, decoded_from
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.grammar import MODALITIES, Grammar, Progress, head_rows
from speechllm.generation.running_batch import DEFAULT_FRAME_RATE
from speechllm.pipelines.system import SpeechSystem
from speechllm.processor import UnifiedProcessor

HASH_KEY = "speechllm.vocabulary_hash"
CONTEXT_KEY = "llama.context_length"


class LlamaCppDecoder:
    """Decodes with a loaded `llama_cpp.Llama`. Not safe for several threads."""

    def __init__(self, llama: Any, processor: UnifiedProcessor):
        if llama.n_vocab() != processor.vocabulary.size:
            raise CheckpointError(
                f"the GGUF file has {llama.n_vocab():,} ids, the processor {processor.vocabulary.size:,}; "
                "export it from the checkpoint that the processor came with"
            )
        tokenizer = processor.semantic_tokenizer
        self.llama, self.processor = llama, processor
        self.frame_rate = tokenizer.frame_rate if tokenizer else DEFAULT_FRAME_RATE
        # llama.cpp rounds its context up; what the model has learnt counts.
        self.max_positions: int | None = min(llama.n_ctx(), int(llama.metadata.get(CONTEXT_KEY, llama.n_ctx())))
        self.rows = [head_rows(processor, modality) for modality in MODALITIES]

    @classmethod
    def load(cls, path: Path, processor: UnifiedProcessor, *, num_threads: int | None = None) -> Self:
        """Load a file that `export_gguf` wrote.

        Raises:
            MissingDependencyError: llama_cpp is not installed.
            CheckpointError: the file cannot be loaded, or belongs to another vocabulary.
        """
        library = _library()
        if not path.is_file():
            raise CheckpointError(f"there is no GGUF file {path}; make one with speechllm gguf")
        try:
            llama = library.Llama(
                str(path),
                n_ctx=0,  # as long as the model says
                # The default cache has half precision, which is enough to change an id now and then.
                type_k=library.GGML_TYPE_F32,
                type_v=library.GGML_TYPE_F32,
                n_threads=num_threads,
                n_threads_batch=num_threads,
                verbose=False,
            )
        except ValueError as error:
            raise CheckpointError(f"llama.cpp cannot load {path}: {error}") from error
        found = llama.metadata.get(HASH_KEY)
        if found != processor.vocabulary.hash:
            raise CheckpointError(
                f"{path} was exported with vocabulary {found}, the processor has {processor.vocabulary.hash}; "
                "export it from the checkpoint that the processor came with"
            )
        return cls(llama, processor)

    def close(self) -> None:
        """Free the model: llama.cpp complains if the program ends before it is freed."""
        self.llama.close()

    def decode(
        self, prompts: Sequence[np.ndarray], grammars: Sequence[Grammar], config: DecodingConfig | None = None
    ) -> list[Decoded]:
        """Decode every prompt under its grammar, one after the other.

        Raises:
            ConfigError: sampling, beams or candidates are asked for.
            DataError: a prompt fills the model's context.
        """
        config = config or DecodingConfig()
        config.require_greedy("llama.cpp")
        return [self._decode(prompt, grammar, config) for prompt, grammar in zip(prompts, grammars, strict=True)]

    def _decode(self, prompt: Int[np.ndarray, " T"], grammar: Grammar, config: DecodingConfig) -> Decoded:
        limit = self.max_positions
        if limit is not None and len(prompt) >= limit:
            raise DataError(f"a prompt has {len(prompt)} ids, but the model reads at most {limit} with its answer")
        progress = Progress([grammar], config.limits(self.frame_rate), self.processor.closing_ids)
        written: list[int] = []
        score, stops, step = 0.0, progress.stops, [int(i) for i in prompt]
        self.llama.reset()
        while not progress.finished[0]:
            if limit is not None and len(prompt) + len(written) >= limit:
                stops[0].append("too_long")
                break
            self.llama.eval(step)
            chosen, log_probability = self._choose(progress)
            written.append(chosen)
            score += log_probability
            progress.advance(np.array([chosen]))
            step = [chosen]
        return decoded_from(self.processor, np.array(written, np.int64), grammar, stops[0], score)

    def _choose(self, progress: Progress) -> tuple[int, float]:
        """Return the likeliest legal id and its log probability among the legal ones."""
        rows = self.rows[int(progress.modality[0])]
        logits = torch.from_numpy(self._logits())[rows.ids] + rows.blocked[int(progress.states()[0])]
        index = int(logits.argmax())
        return int(rows.ids[index]), float(logits.log_softmax(-1)[index])

    def _logits(self) -> Float[np.ndarray, " V"]:
        """Return a copy of the logits behind the last id."""
        pointer = _library().llama_get_logits_ith(self.llama.ctx, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.llama.n_vocab(),)).astype(np.float32)


def _library() -> Any:
    try:
        return importlib.import_module("llama_cpp")
    except ImportError as error:
        raise MissingDependencyError("llama_cpp_python", "llama-cpp", "a GGUF language model") from error


def with_decoder(system: SpeechSystem, decoder: Any) -> SpeechSystem:
    """Return a system that does the same with another decoder of its language model."""
    other = SpeechSystem(
        system.checkpoint, decoding=system.decoding, allow_untrained=system.allow_untrained, vad=system.vad
    )
    other.decoder = decoder
    return other
