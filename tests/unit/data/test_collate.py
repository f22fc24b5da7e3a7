import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPTNeoXConfig, LlamaConfig, Qwen2Config

from speechllm.data.collate import IGNORED, Collator, collate_rows, task_name
from speechllm.errors import DataError
from speechllm.processor import EncodedExample
from speechllm.tasks import TASKS, Task, TaskTag, register_task

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "use_cache": False,
}
FAMILIES = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=1),
    "gpt-neox": GPTNeoXConfig(**SIZES),
    "gemma2": Gemma2Config(**SIZES, head_dim=16, num_key_value_heads=1, pad_token_id=None, sliding_window=6),
}


def example(length, prompt=2, tag="[ASR English]", seed=0):
    ids = np.random.default_rng([seed, length]).integers(1, 60, length)
    return EncodedExample(ids, np.arange(length) >= prompt, tag)


def test_layout_of_a_row():
    row = [example(4), example(3, prompt=1)]
    batch = collate_rows([row], pad_id=0, row_tokens=9)
    a, b = row[0].input_ids, row[1].input_ids
    assert batch["input_ids"][0].tolist() == [*a, *b, 0, 0]
    assert batch["position_ids"][0].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1]
    assert batch["labels"][0].tolist() == [IGNORED, IGNORED, *a[2:], IGNORED, *b[1:], IGNORED, IGNORED]


def test_the_first_id_of_an_example_has_no_label_even_without_a_prompt():
    batch = collate_rows([[example(3, prompt=0), example(3, prompt=0)]], pad_id=0)
    assert (batch["labels"][0][[0, 3]] == IGNORED).all()
    assert (batch["labels"][0][[1, 2, 4, 5]] != IGNORED).all()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_logits_equal_unpacked_logits(family, attention):
    if (family, attention) == ("gemma2", "sdpa"):
        pytest.skip("transformers has no sdpa for Gemma 2, whose attention logits are capped")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[family], attn_implementation=attention).eval()
    rows = [[example(9), example(4), example(12)], [example(15), example(3, seed=1)]]
    batch = collate_rows(rows, pad_id=0, row_tokens=30)
    with torch.no_grad():
        packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
        for b, row in enumerate(rows):
            column = 0
            for item in row:
                alone = model(input_ids=torch.from_numpy(item.input_ids)[None]).logits[0]
                # Only the order of float32 sums differs.
                assert torch.allclose(packed[b, column : column + len(item)], alone, atol=1e-5)
                column += len(item)


def test_the_law_is_broken_by_an_attention_mask_of_ones():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES["llama"]).eval()
    batch = collate_rows([[example(9), example(12)]], pad_id=0)
    with torch.no_grad():
        right = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
        leaking = model(**{k: batch[k] for k in ("input_ids", "position_ids")}, attention_mask=torch.ones(1, 21)).logits
    assert (right - leaking).abs().max() > 1e-3


def test_tasks_are_numbered_per_token():
    rows = [[example(3, tag="[AST English French]"), example(2, tag="[ASR French]")], [example(2, tag="?")]]
    batch = Collator(pad_id=0, row_tokens=6, tags=("ASR", "AST"))(rows)
    assert batch["task_ids"].tolist() == [[2, 2, 2, 1, 1, 0], [0, 0, 0, 0, 0, 0]]


def test_task_name():
    assert task_name("[ASR AST S2ST English French]") == "ASR AST S2ST"
    assert task_name("") == ""


def test_a_task_of_ones_own_keeps_its_name(monkeypatch):
    monkeypatch.setattr(TASKS, "_entries", dict(TASKS._entries))
    register_task(Task("asr-Noisy", "audio", "transcript"))
    assert task_name(str(TaskTag.of("asr-Noisy", "en"))) == "asr-Noisy"


def test_a_row_that_is_too_long_is_refused():
    with pytest.raises(DataError, match="a row has 9 tokens, expected at most 8"):
        collate_rows([[example(9)]], pad_id=0, row_tokens=8)
