"""The processor over the kinds of text tokenizers that LLMs have: byte-level BPE, sentencepiece, unigram."""

import json

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from speechllm.processor import UnifiedProcessor
from speechllm.segments import CodeSegment, TextSegment
from speechllm.vocabulary import TEXT, Vocabulary
from tests.support.tiny import NUM_CODES, SENTENCES, tiny_text_tokenizer

TEXTS = ("good morning", "la lumière s'il te plaît", "naïve, 東京 🙂 3.5 €", "</s> is a word", "a", "")
SPECIAL = ["<unk>", "<s>", "</s>"]


def sentencepiece(folder):
    """What a repository with nothing but tokenizer.model gives: pieces of a real sentencepiece model, as Llama has."""
    import sentencepiece as spm

    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_prefix=str(folder / "tokenizer"), vocab_size=340,
        model_type="bpe", byte_fallback=True, character_coverage=1.0, minloglevel=2,
    )  # fmt: skip
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return AutoTokenizer.from_pretrained(folder)


def with_bos(tokenizer):
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def byte_fallback_bpe(folder):
    """Pieces over "▁" without a leading one, bytes for what is unknown: as Gemma has."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    all_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=[*SPECIAL, *all_bytes], show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL]
    return with_bos(Tokenizer.from_str(json.dumps(state)))


def unigram(folder):
    """A unigram model that knows its alphabet alone."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    alphabet = sorted(set("".join(TEXTS)) - {" "})
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*SENTENCES, *TEXTS], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return with_bos(tokenizer)


KINDS = {
    "byte-level-bpe": lambda folder: tiny_text_tokenizer(),
    "sentencepiece": sentencepiece,
    "byte-fallback-bpe": byte_fallback_bpe,
    "unigram": unigram,
}


@pytest.fixture(scope="module", params=KINDS)
def processor(request, tmp_path_factory):
    tokenizer = KINDS[request.param](tmp_path_factory.mktemp("tokenizer"))
    return UnifiedProcessor(tokenizer, Vocabulary.for_speech(len(tokenizer) + 5, NUM_CODES))


def has_mark_as_piece(tokenizer):
    """Unigram models do: then the word is lost, but it ends nothing."""
    return "Unigram" in type(tokenizer.backend_tokenizer.model).__name__


def test_text_survives_between_codes(processor):
    codes = CodeSegment(np.arange(4))
    for text in TEXTS:
        target = [TextSegment(text), codes, TextSegment(text)]
        ids = processor.encode_target(target)
        assert ids.max() < processor.vocabulary.size
        if "</s>" in text and has_mark_as_piece(processor.text_tokenizer):
            continue
        assert processor.decode_target(ids, ("text", "audio", "text")) == target


def test_words_like_marks_are_words(processor):
    special = processor.text_tokenizer.all_special_ids
    unknown = processor.text_tokenizer.unk_token_id
    for text in ("</s>", "a <s> b </s>", "<eos><|next|>"):
        ids = processor.encode_segment(TextSegment(text))
        assert not np.isin(ids, [i for i in special if i != unknown]).any()
        assert (ids < processor.vocabulary[TEXT].stop).all()


def test_bos_stands_first_if_the_tokenizer_has_it_so(processor):
    ids = processor.encode_prompt([TextSegment("[ASR French]"), CodeSegment(np.arange(3))])
    bos = processor.text_tokenizer.bos_token_id
    assert (ids == bos).sum() == len(processor.prefix_ids)
    assert ids[: len(processor.prefix_ids)].tolist() == [bos] * len(processor.prefix_ids)
    plain = processor.encode_plain_text("good morning")
    assert plain.input_ids[: len(processor.prefix_ids)].tolist() == [bos] * len(processor.prefix_ids)
    assert plain.input_ids[-1] == processor.eos_id


def test_reloads_with_the_same_ids(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = UnifiedProcessor.from_pretrained(tmp_path)
    assert again.prefix_ids == processor.prefix_ids
    for text in TEXTS:
        target = [TextSegment(text), CodeSegment(np.arange(2))]
        assert again.encode_target(target).tolist() == processor.encode_target(target).tolist()
