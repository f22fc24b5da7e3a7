"""The processor: examples to ids and back. With the vocabulary it owns the layout of a sequence.

    [BOS] tag-ids input-ids <|next|> part-ids <|next|> part-ids ... EOS
    -------- prompt, no loss ------- ------------ target, loss --------

Text goes through the LLM's own tokenizer, each segment by itself, so that ids do not depend on their
neighbours; audio codes go in by arithmetic. BOS stands only where the text tokenizer puts one.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from speechllm.audio import AudioSource, load_audio
from speechllm.errors import CheckpointError, NoCheckpointError, VocabularyError
from speechllm.segments import PLAIN_TEXT, CodeSegment, Example, Modality, Segment, TextSegment
from speechllm.tasks import TaskTag
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.vocabulary import SEMANTIC, TEXT, Vocabulary

MANIFEST_FILE = "speechllm.json"
SEMANTIC_FOLDER = "semantic_tokenizer"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
"Version 2 records what the model was trained for (`speechllm.hub`); of a checkpoint of version 1 that is not known."


@dataclass(frozen=True, eq=False)
class EncodedExample:
    """An example as ids: `input_ids` int64 [T] and `loss_mask` bool [T], true on target ids."""

    input_ids: np.ndarray
    loss_mask: np.ndarray
    tag: str = ""

    def __len__(self) -> int:
        return len(self.input_ids)


class UnifiedProcessor:
    """Joins a text tokenizer, the vocabulary and (optionally) the semantic tokenizer."""

    def __init__(
        self,
        text_tokenizer: PreTrainedTokenizerBase,
        vocabulary: Vocabulary,
        semantic_tokenizer: SemanticTokenizer | None = None,
    ):
        if len(text_tokenizer) > vocabulary[TEXT].size:
            raise VocabularyError(
                f"the text tokenizer has {len(text_tokenizer):,} tokens but the text block holds "
                f"{vocabulary[TEXT].size:,} ids; pass the tokenizer that belongs to this model"
            )
        if text_tokenizer.eos_token_id is None:
            raise VocabularyError(
                "the text tokenizer has no EOS token, so no output would ever end; set tokenizer.eos_token"
            )
        if semantic_tokenizer is not None and semantic_tokenizer.codebook_size != vocabulary[SEMANTIC].size:
            raise VocabularyError(
                f"the semantic tokenizer has {semantic_tokenizer.codebook_size} codes but the vocabulary "
                f"has {vocabulary[SEMANTIC].size} semantic ids; use the two that were made together"
            )
        self.text_tokenizer = text_tokenizer
        self.vocabulary = vocabulary
        self.semantic_tokenizer = semantic_tokenizer
        self.eos_id = cast(int, text_tokenizer.eos_token_id)
        self.prefix_ids = _leading_bos(text_tokenizer)
        special = cast(list[int], text_tokenizer.all_special_ids)
        unknown = text_tokenizer.unk_token_id
        self._mark_ids = sorted({self.eos_id, *(i for i in special if i != unknown)})

    @property
    def closing_ids(self) -> tuple[int, int]:
        """The id that closes a part with another behind it, and the one that closes the last."""
        return self.vocabulary.next_id, self.eos_id

    # ids out of segments

    def encode_segment(self, segment: Segment) -> np.ndarray:
        """Return the ids int64 [T] of one segment, without any mark around it."""
        if isinstance(segment, CodeSegment):
            return self.vocabulary.to_ids(segment.block, segment.codes)
        text = " ".join(segment.text.split())
        # Split, so that the word "</s>" in a transcript stays a word and ends nothing.
        ids = self.text_tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        ids = np.asarray(ids, dtype=np.int64)
        # Unigram models know "</s>" as a piece like any other; there it is left out.
        return ids[~np.isin(ids, self._mark_ids)]

    def encode_prompt(self, prompt: Sequence[Segment]) -> np.ndarray:
        """Return the ids int64 [T] that the model reads, `<|next|>` at the end included."""
        parts = [np.asarray(self.prefix_ids, dtype=np.int64)]
        parts += [self.encode_segment(segment) for segment in prompt]
        return np.concatenate([*parts, [self.vocabulary.next_id]])

    def encode_target(self, target: Sequence[Segment]) -> np.ndarray:
        """Return the ids int64 [T] that the model writes, EOS at the end included."""
        ids: list[np.ndarray] = []
        for i, segment in enumerate(target):
            closing = self.closing_ids[i == len(target) - 1]
            ids += [self.encode_segment(segment), np.array([closing])]
        return np.concatenate(ids)

    def encode(self, example: Example) -> EncodedExample:
        """Return the whole sequence of an example with its loss mask."""
        prompt, target = self.encode_prompt(example.prompt), self.encode_target(example.target)
        mask = np.concatenate([np.zeros(len(prompt), bool), np.ones(len(target), bool)])
        return EncodedExample(np.concatenate([prompt, target]), mask, example.tag)

    def encode_plain_text(self, text: str) -> EncodedExample:
        """Return text as an LLM reads it in pretraining, EOS at the end, with loss on all of it."""
        ids = np.concatenate([self.prefix_ids, self.encode_segment(TextSegment(text)), [self.eos_id]]).astype(np.int64)
        return EncodedExample(ids, np.ones(len(ids), bool), PLAIN_TEXT)

    # segments out of ids

    def decode_target(self, ids: Sequence[int] | np.ndarray, modalities: Sequence[Modality]) -> list[Segment]:
        """Split generated ids into their parts: the inverse of `encode_target`.

        Ids of the wrong modality in a part are dropped, and parts that are missing come back empty, so that
        the output of a half-trained model can still be read. Text may differ from what went in by the
        whitespace that the text tokenizer does not keep.
        """
        ids = np.asarray(ids, dtype=np.int64)
        ends = np.flatnonzero(ids == self.eos_id)
        ids = ids[: ends[0]] if len(ends) else ids
        cuts = np.flatnonzero(ids == self.vocabulary.next_id)
        spans = [span[span != self.vocabulary.next_id] for span in np.split(ids, cuts)]
        spans += [np.zeros(0, np.int64)] * (len(modalities) - len(spans))
        return [self.decode_segment(span, m) for span, m in zip(spans, modalities, strict=False)]

    def decode_segment(self, ids: np.ndarray, modality: Modality) -> Segment:
        """Turn the ids of one part into a segment, dropping ids of other blocks."""
        block = self.vocabulary[SEMANTIC if modality == "audio" else TEXT]
        ids = ids[(ids >= block.start) & (ids < block.stop)]
        if modality == "audio":
            return CodeSegment(self.vocabulary.to_codes(SEMANTIC, ids))
        text = self.text_tokenizer.decode(ids.tolist(), skip_special_tokens=True)
        return TextSegment(str(text).strip())

    # audio in

    def audio_segment(self, audio: AudioSource) -> CodeSegment:
        """Turn audio into semantic codes."""
        return self.audio_segments([audio])[0]

    def audio_segments(self, audios: Iterable[AudioSource]) -> list[CodeSegment]:
        """Turn a batch of audio into semantic codes."""
        tokenizer = self.semantic_tokenizer
        if tokenizer is None:
            raise CheckpointError(
                "this processor has no semantic tokenizer, so it cannot read audio; "
                f"load a checkpoint with a {SEMANTIC_FOLDER}/ folder or pass semantic_tokenizer="
            )
        loaded = [load_audio(audio, tokenizer.sample_rate) for audio in audios]
        return [CodeSegment(codes) for codes in tokenizer.encode(loaded)]

    def __call__(self, tag: TaskTag, inputs: Sequence[AudioSource | str]) -> list[np.ndarray]:
        """Return prompt ids for a task and a batch of inputs (texts, or audio in any form)."""
        if tag.source == "transcript":
            return [self.encode_prompt(tag.prompt(str(text))) for text in inputs]
        return [self.encode_prompt(tag.prompt(codes)) for codes in self.audio_segments(inputs)]

    # disk

    def save_pretrained(self, folder: str | Path) -> None:
        """Write text tokenizer, manifest and semantic tokenizer into a checkpoint folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.text_tokenizer.save_pretrained(folder)
        if self.semantic_tokenizer is not None:
            self.semantic_tokenizer.save_pretrained(folder / SEMANTIC_FOLDER)
        manifest = {
            "format_version": FORMAT_VERSION,
            "vocabulary": self.vocabulary.manifest(),
            "semantic_tokenizer": self.semantic_tokenizer.fingerprint if self.semantic_tokenizer else None,
        }
        partial = folder / f".{MANIFEST_FILE}.partial"
        partial.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, folder / MANIFEST_FILE)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "UnifiedProcessor":
        """Load a processor from a local checkpoint folder.

        Raises:
            CheckpointError: the folder is no checkpoint of ours, or its parts do not belong together.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        semantic = None
        if (folder / SEMANTIC_FOLDER).is_dir():
            semantic = SemanticTokenizer.from_pretrained(folder / SEMANTIC_FOLDER)
            if manifest["semantic_tokenizer"] not in (None, semantic.fingerprint):
                raise CheckpointError(
                    f"{folder / SEMANTIC_FOLDER} has fingerprint {semantic.fingerprint}, but the checkpoint was made "
                    f"with {manifest['semantic_tokenizer']}; restore the semantic tokenizer it came with"
                )
        vocabulary = Vocabulary.from_manifest(manifest["vocabulary"])
        return cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), vocabulary, semantic)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint's `speechllm.json`."""
    path = Path(folder) / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NoCheckpointError(f"{folder} is no speechllm checkpoint: it has no {MANIFEST_FILE}") from error
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version not in READABLE_VERSIONS:
        raise CheckpointError(
            f"{path} has format version {version}, this release reads {' and '.join(map(str, READABLE_VERSIONS))}; "
            "upgrade speechllm or save the checkpoint again"
        )
    return manifest


def _leading_bos(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return (bos,) if the tokenizer itself puts a BOS before text, else ()."""
    ids = tokenizer("a")["input_ids"]
    bos = tokenizer.bos_token_id
    return (cast(int, bos),) if bos is not None and len(ids) and ids[0] == bos else ()
