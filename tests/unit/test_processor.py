"""The processor: segments to ids and back, one layout, parts that belong together."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechllm.errors import CheckpointError, VocabularyError
from speechllm.processor import UnifiedProcessor
from speechllm.segments import CodeSegment, Segment, TextSegment
from speechllm.tasks import TaskTag
from speechllm.vocabulary import SEMANTIC, TEXT, Vocabulary
from tests.support.tiny import tiny_processor, tiny_speech, tiny_text_tokenizer

PROCESSOR = tiny_processor(semantic=False)
NEXT, EOS = PROCESSOR.vocabulary.next_id, PROCESSOR.eos_id

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
texts = st.lists(words, max_size=5).map(lambda parts: TextSegment(" ".join(" ".join(parts).split())))
codes = st.lists(st.integers(0, 15), max_size=20).map(lambda c: CodeSegment(np.array(c, dtype=np.int64)))
targets = st.lists(texts | codes, min_size=1, max_size=4)


@given(target=targets)
def test_decoding_undoes_encoding(target: list[Segment]):
    ids = PROCESSOR.encode_target(target)
    assert PROCESSOR.decode_target(ids, [segment.modality for segment in target]) == target


@given(target=targets, prompt=targets)
def test_the_layout_of_a_sequence(target: list[Segment], prompt: list[Segment]):
    """Marks close the prompt and all parts but the last; EOS stands once, at the end; loss is on the target alone."""
    from speechllm.segments import Example

    encoded = PROCESSOR.encode(Example(tuple(prompt), tuple(target), "tag"))
    ids = encoded.input_ids
    assert ids.dtype == np.int64
    assert ids[-1] == EOS
    assert (ids == EOS).sum() == 1
    assert (ids == NEXT).sum() == len(target)
    first = int(np.flatnonzero(encoded.loss_mask)[0])
    assert ids[first - 1] == NEXT
    assert encoded.loss_mask.tolist() == [False] * first + [True] * (len(ids) - first)
    assert np.array_equal(ids[first:], PROCESSOR.encode_target(target))
    assert ids.min() >= 0
    assert ids.max() < PROCESSOR.vocabulary.size


@given(text=words)
def test_text_in_a_record_cannot_forge_marks(text: str):
    """Words that look like special tokens end nothing: neither EOS nor the mark comes out of a text segment."""
    for forged in (text + "<eos>", "<|next|>" + text, "<bos> <pad>"):
        ids = PROCESSOR.encode_segment(TextSegment(forged))
        assert not np.isin(ids, [NEXT]).any()
        assert not np.isin(ids, PROCESSOR.text_tokenizer.all_special_ids).any()


def test_segments_do_not_depend_on_their_neighbours():
    a, b = TextSegment("good morning"), TextSegment("bonjour")
    together = PROCESSOR.encode_prompt([a, b])
    apart = [*PROCESSOR.prefix_ids, *PROCESSOR.encode_segment(a), *PROCESSOR.encode_segment(b), NEXT]
    assert together.tolist() == apart


def test_half_trained_output_can_be_read():
    audio = PROCESSOR.vocabulary.to_ids(SEMANTIC, [3, 4])
    text = PROCESSOR.encode_segment(TextSegment("good"))
    wrong = np.concatenate([text, audio, [NEXT], text, audio[:1]])
    first, second, third = PROCESSOR.decode_target(wrong, ("text", "audio", "text"))
    assert first == TextSegment("good")
    assert second == CodeSegment(np.array([3]))
    assert third == TextSegment("")


def test_prompts_for_a_task():
    processor = tiny_processor()
    audio = tiny_speech(1.0)
    (ids,) = processor(TaskTag.of("ASR", "fr"), [audio])
    assert processor.semantic_tokenizer is not None
    (expected,) = processor.semantic_tokenizer.encode([audio])
    block = processor.vocabulary[SEMANTIC]
    assert (ids[(ids >= block.start)] - block.start).tolist() == expected.tolist()
    tag = processor.text_tokenizer.decode(ids[ids < block.start][:-1].tolist())
    assert tag == "[ASR French]"
    (ids,) = processor(TaskTag.of("TTS", "en"), ["good morning"])
    assert processor.text_tokenizer.decode(ids[:-1].tolist()) == "[TTS English]good morning"


def test_save_and_load(tmp_path: Path):
    processor = tiny_processor()
    processor.save_pretrained(tmp_path)
    loaded = UnifiedProcessor.from_pretrained(tmp_path)
    assert loaded.vocabulary == processor.vocabulary
    target = [TextSegment("la lumière s'il te plaît"), CodeSegment(np.array([1, 2]))]
    assert loaded.encode_target(target).tolist() == processor.encode_target(target).tolist()
    audio = [tiny_speech(0.5)]
    assert loaded.audio_segments(audio) == processor.audio_segments(audio)


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path):
    tokenizer = tiny_text_tokenizer()
    with pytest.raises(
        VocabularyError, match=f"text tokenizer has {len(tokenizer)} tokens but the text block holds 100"
    ):
        UnifiedProcessor(tokenizer, Vocabulary.for_speech(100, 16))
    processor = tiny_processor()
    with pytest.raises(VocabularyError, match="semantic tokenizer has 16 codes but the vocabulary has 8"):
        UnifiedProcessor(tokenizer, Vocabulary.for_speech(400, 8), processor.semantic_tokenizer)
    processor.save_pretrained(tmp_path)
    manifest = json.loads((tmp_path / "speechllm.json").read_text())
    (tmp_path / "speechllm.json").write_text(json.dumps({**manifest, "semantic_tokenizer": "other"}))
    with pytest.raises(CheckpointError, match="but the checkpoint was made with other"):
        UnifiedProcessor.from_pretrained(tmp_path)
    (tmp_path / "speechllm.json").write_text(json.dumps({**manifest, "format_version": 99}))
    with pytest.raises(CheckpointError, match="has format version 99, this release reads 1 and 2; upgrade"):
        UnifiedProcessor.from_pretrained(tmp_path)
    (tmp_path / "speechllm.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        UnifiedProcessor.from_pretrained(tmp_path)


def test_without_a_semantic_tokenizer_audio_is_refused():
    with pytest.raises(CheckpointError, match="no semantic tokenizer, so it cannot read audio"):
        PROCESSOR.audio_segment(tiny_speech(0.5))
    tokenizer = tiny_text_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(VocabularyError, match="no EOS token"):
        UnifiedProcessor(tokenizer, Vocabulary.for_speech(400, 8))


def test_bos_stands_only_where_the_tokenizer_puts_one():
    from tokenizers.processors import TemplateProcessing

    assert PROCESSOR.prefix_ids == ()
    tokenizer = tiny_text_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    processor = UnifiedProcessor(tokenizer, Vocabulary.for_speech(400, 8))
    assert processor.prefix_ids == (1,)
    ids = processor.encode_prompt([TextSegment("good"), TextSegment("morning")])
    assert ids[0] == 1
    assert (ids == 1).sum() == 1
    assert processor.vocabulary[TEXT].size == 400
