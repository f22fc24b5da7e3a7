"""Text without a task among the tasks."""

import json
from collections import Counter

import numpy as np
import pytest

from speechllm.data.collate import IGNORED, Collator, task_name
from speechllm.data.mixture import BLOCK, Mixture, MixtureComponent, MixtureConfig, load_mixture
from speechllm.data.plain_text import is_plain_text, read_plain_text
from speechllm.data.row_store import RowStore
from speechllm.data.tokenize import TokenRow
from speechllm.errors import ConfigError, DataError
from speechllm.processor import EncodedExample
from speechllm.training.audit import audit_example
from speechllm.training.checks import check_examples
from tests.support.tiny import tiny_processor

PROCESSOR = tiny_processor(semantic=False)
LONG = " ".join(f"word{i}" for i in range(80))


@pytest.fixture
def folder(tmp_path):
    rows = [{"text": "il est  midi", "language": "fr"}, {"text": "held out", "split": "test"}, {"text": " "}]
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "a.txt").write_text("good morning\n\nturn on the light\n")
    (tmp_path / "notes.md").write_text("not this")
    return tmp_path


def text_mixture(rows, **options):
    component = MixtureComponent(tasks="text", folder="f", **options)
    return Mixture(MixtureConfig(components=[component]), PROCESSOR, [RowStore.of(rows)])


def text_row(text, **options):
    return TokenRow(id="a", split="train", language="en", text=text, **options)


def test_files_and_folders_are_read_in_order(folder):
    assert [row.text for row in read_plain_text(folder)] == ["good morning", "turn on the light", "il est midi"]
    assert [row.text for row in read_plain_text(folder / "b.jsonl", "test")] == ["held out"]
    assert is_plain_text(folder)
    assert is_plain_text("absent.jsonl")
    assert not is_plain_text(folder / "absent")


@pytest.mark.parametrize(
    ("content", "message"), [("[1]", "expected a row"), ("{", "line 1 is no JSON"), ('{"t": 1}', "line 1")]
)
def test_what_is_no_text_is_named(tmp_path, content, message):
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        list(read_plain_text(tmp_path))
    with pytest.raises(DataError, match="cannot read text from"):
        list(read_plain_text(tmp_path / "absent.txt"))


def test_all_ids_but_the_first_have_loss(folder):
    component = MixtureComponent(tasks="text", folder=str(folder))
    mixture = load_mixture(MixtureConfig(components=[component]), PROCESSOR)
    assert mixture.sizes == [3]
    seen = set()
    for i in range(3):
        example = mixture.example(i)
        assert example.loss_mask.all()
        assert example.input_ids[-1] == PROCESSOR.eos_id
        seen.add(PROCESSOR.text_tokenizer.decode(example.input_ids.tolist(), skip_special_tokens=True))
        labels = Collator(pad_id=0, tags=("text",))([[example]])["labels"][0]
        assert labels[0] == IGNORED
        assert labels[1:].tolist() == example.input_ids[1:].tolist()
    assert seen == {"good morning", "turn on the light", "il est midi"}


def test_a_long_text_gives_stretches_that_cover_it():
    mixture = text_mixture([text_row(LONG)], text_tokens=20)
    whole = PROCESSOR.encode_plain_text(LONG).input_ids
    stretches = [mixture.example(i) for i in range(200)]
    assert {len(stretch) for stretch in stretches} == {20}
    assert all(task_name(stretch.tag) == "text" for stretch in stretches)
    starts = {
        next(s for s in range(len(whole) - 19) if np.array_equal(whole[s : s + 20], stretch.input_ids))
        for stretch in stretches
    }
    assert min(starts) < 15
    assert max(starts) > len(whole) - 35
    again = text_mixture([text_row(LONG)], text_tokens=20)
    assert all(np.array_equal(again.example(i).input_ids, stretches[i].input_ids) for i in reversed(range(20)))


def test_text_mixes_with_tasks_by_weight():
    rows = [text_row("good morning", codes=np.arange(5)), text_row("turn on the light", codes=np.arange(4))]
    components = [MixtureComponent(tasks="ASR", folder="f", weight=3.0), MixtureComponent(tasks="text", folder="f")]
    mixture = Mixture(MixtureConfig(components=components, code_noise=0.5), PROCESSOR, [RowStore.of(rows)] * 2)
    counts = Counter(task_name(mixture.segments(i).tag) for i in range(BLOCK))
    assert counts == {"ASR": BLOCK * 3 // 4, "text": BLOCK // 4}
    table = {count.name: count for count in check_examples(mixture, max_tokens=96, num_examples=64).counts}
    assert table["text"].audio == table["text"].prompt == 0 < table["text"].text


def test_token_rows_give_the_texts_of_both_sides():
    row = text_row("good morning", translation_language="fr", translation_text="bonjour", codes=np.arange(3))
    assert text_mixture([row]).sizes == [2]
    french = text_mixture([row], directions=["fr"])
    assert french.segments(0).target[0].text == "bonjour"


def test_errors():
    with pytest.raises(DataError, match=r"component \[text\] on f/train has no text among 1 rows"):
        text_mixture([text_row("")])
    with pytest.raises(ConfigError, match="text_tokens = 1, expected at least 2"):
        text_mixture([text_row("a")], text_tokens=1)
    good = PROCESSOR.encode_plain_text("good morning")
    audit_example(good, PROCESSOR)
    with pytest.raises(DataError, match="outside the text block"):
        audit_example(
            EncodedExample(good.input_ids + PROCESSOR.vocabulary.next_id, good.loss_mask, good.tag), PROCESSOR
        )
    with pytest.raises(DataError, match="without loss"):
        audit_example(EncodedExample(good.input_ids, ~good.loss_mask, good.tag), PROCESSOR)
