import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from speechllm.errors import ConfigError
from speechllm.models.text_lm import train_bpe

TOKENIZER = train_bpe(["good morning everybody", "il est midi et demi"] * 5, vocab_size=300)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_round_trip(text):
    assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"]) == text


def test_reloaded_tokenizer_gives_the_same_ids(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "good morning, déjà vu"
    assert again(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert (again.bos_token_id, again.eos_token_id, again.pad_token_id) == (0, 1, 2)


def test_frequent_words_become_few_tokens():
    assert len(TOKENIZER("good morning everybody")["input_ids"]) < 9
    assert len(TOKENIZER) <= 300


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="vocab_size = 100, expected at least 259"):
        train_bpe(["a"], vocab_size=100)
