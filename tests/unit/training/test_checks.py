"""Every line of the table before the first step is ok on sound parts, and each fails on what it is there for."""

import dataclasses

import numpy as np
import pytest
import torch

from recipes.train_unified import main
from speechllm.config import load_config
from speechllm.data.mixture import load_mixture
from speechllm.data.row_store import RowStore
from speechllm.data.shards import MANIFEST_FILE
from speechllm.errors import CheckpointError, ConfigError, DataError, VocabularyError
from speechllm.models import adapters
from speechllm.models.adapters import LoraSettings
from speechllm.models.causal_lm import EXTENDED_KEY
from speechllm.processor import EncodedExample
from speechllm.training import checks
from speechllm.training.audit import audit_example, describe_example
from speechllm.training.checks import check_examples, check_training, print_report
from speechllm.training.unified import UnifiedTrainConfig, load_extended_lm, make_trainer
from tests.support.tiny import tiny_model, tiny_processor
from tests.unit.training.test_unified import TASKS, write_recipe

LINES = [
    "vocabulary", "shards", "token rate", "id ranges", "label mask", "EOS", "parts", "lengths", "packing", "adapters",
    "memory",
]  # fmt: skip


class Parts:
    """A recipe's parts on disk and in memory, sound until a test breaks one."""

    def __init__(self, folder, lora):
        self.folder = folder
        config = load_config(UnifiedTrainConfig, write_recipe(folder))
        self.config = dataclasses.replace(config, lora=lora)
        self.base = load_extended_lm(self.config)
        self.mixture = load_mixture(self.config.mixture, self.base.processor)

    def check(self, num_examples=40):
        trainer = make_trainer(self.base.model, self.mixture, self.config)
        return check_training(trainer, self.mixture, self.config, num_examples=num_examples)


@pytest.fixture
def parts(tmp_path):
    return Parts(tmp_path, None)


@pytest.fixture
def adapted(tmp_path):
    return Parts(tmp_path, LoraSettings(rank=2))


def broken(report, line, kind, message):
    """The report fails in one line, with the error that a user will see."""
    assert report[line].verdict == "FAILED"
    with pytest.raises(kind, match=message):
        report.raise_if_failed()
    return True


def test_sound_parts_pass_and_nothing_is_changed(adapted, capsys):
    model = adapted.base.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = adapted.check()
    report.raise_if_failed()
    assert [check.name for check in report.checks] == LINES
    assert {check.verdict for check in report.checks} == {"ok"}
    # Tokens of half-second clips: one code of rounding each.
    assert "codes a second of audio, the tokenizer makes 12.5" in report["token rate"].finding
    state = model.state_dict()
    base = {name.replace(".token_adapter", "").replace(".base_layer", ""): value for name, value in state.items()}
    assert all(torch.equal(base[name], value) for name, value in before.items())
    assert all(not v.any() for n, v in base.items() if "lora_B" in n), "adapters must begin as they would have"
    print_report(report)
    printed = capsys.readouterr().out
    for text in ("label mask", "ASR AST S2ST", "no loss | [ASR English]", "one two<eos>", "codes: "):
        assert text in printed


def test_counts_are_of_what_tasks_read_and_write(parts):
    counts = {count.name: count for count in check_examples(parts.mixture, max_tokens=96, num_examples=200).counts}
    assert set(counts) == set(TASKS)
    assert sum(count.examples for count in counts.values()) == 200
    assert counts["ASR"].audio == 0 < counts["ASR"].text
    assert counts["TTS"].audio > 0


def test_another_vocabulary(parts):
    size = parts.base.processor.vocabulary.size
    parts.base.model.config.speechllm_vocabulary = "0123"
    report = parts.check()
    assert broken(report, "vocabulary", VocabularyError, "was extended by the vocabulary with hash 0123")
    trainer = make_trainer(tiny_model(size + 1), parts.mixture, dataclasses.replace(parts.config, lora=None))
    report = check_training(trainer, parts.mixture, parts.config, num_examples=4)
    assert broken(report, "vocabulary", VocabularyError, f"the model has {size + 1} rows, the vocabulary")
    assert "packing" not in [check.name for check in report.checks]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"frame_rate": 12.5', '"frame_rate": 25.0', "says 16 codes at 25 Hz, the tokenizer has 16 at 12.5 Hz"),
        ('"fingerprint": "', '"fingerprint": "f', "tokenizer f"),
    ],
)
def test_other_shards(parts, old, new, message):
    path = parts.folder / "tokens" / MANIFEST_FILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert broken(parts.check(), "shards", DataError, message)


def test_another_token_rate(parts):
    def last(seconds):
        durations = {"duration_seconds": seconds, "translation_duration_seconds": seconds}
        stores = parts.mixture.stores
        parts.mixture.stores = [RowStore.of(dataclasses.replace(row, **durations) for row in s.rows()) for s in stores]

    last(6.0)
    assert broken(parts.check(), "token rate", DataError, r"1\.33 codes a second of audio, the tokenizer makes 12\.5")
    last(0.0)
    assert parts.check()["token rate"].verdict == "warning"


@pytest.mark.parametrize(
    ("line", "break_it", "message"),
    [
        ("id ranges", lambda ids, mask, size: (ids + size, mask), "training example 0: .* has ids outside 0"),
        ("label mask", lambda ids, mask, size: (ids, np.roll(mask, 1) & mask), "not right behind the mark"),
        ("label mask", lambda ids, mask, size: (ids, np.zeros_like(mask)), "mask that is not one run"),
        ("EOS", lambda ids, mask, size: (ids[:-1], mask[:-1]), "it would never stop"),
    ],
)
def test_examples_that_would_train_wrongly(parts, monkeypatch, line, break_it, message):
    size, example = parts.base.processor.vocabulary.size, parts.mixture.example

    def other(index):
        good = example(index)
        ids, mask = break_it(good.input_ids, good.loss_mask, size)
        return EncodedExample(ids, mask, good.tag)

    monkeypatch.setattr(parts.mixture, "example", other)
    assert broken(check_examples(parts.mixture, max_tokens=128, num_examples=3), line, DataError, message)


def test_parts_that_the_tag_does_not_promise(parts):
    good = parts.mixture.example(0)
    audit_example(good, parts.base.processor)
    other = EncodedExample(good.input_ids, good.loss_mask, "[ASR AST S2ST English French]")
    if good.tag == other.tag:
        other = EncodedExample(good.input_ids, good.loss_mask, "[ASR English]")
    with pytest.raises(DataError, match="target parts"):
        audit_example(other, parts.base.processor)


def test_lengths(parts):
    assert broken(check_examples(parts.mixture, max_tokens=5), "lengths", DataError, "longer than max_tokens = 5")
    lengths = sorted({len(parts.mixture.example(i)) for i in range(40)})
    some = check_examples(parts.mixture, max_tokens=lengths[-1] - 1, num_examples=40)
    if not some.errors:
        assert some["lengths"].verdict == "warning"


@pytest.mark.parametrize("family", ["opt", "gpt_oss"])
def test_families_whose_packed_examples_see_each_other(parts, family):
    model = tiny_model(parts.base.processor.vocabulary.size, family)
    report = checks.CheckReport()
    examples = [parts.mixture.example(i) for i in range(4)]
    report.run("packing", lambda: checks.check_packing(model, examples))
    assert broken(report, "packing", ConfigError, "packed examples see each other .*take another model family")
    sound = tiny_model(parts.base.processor.vocabulary.size)
    assert "do not see each other" in checks.check_packing(sound, examples)


def test_adapters_that_are_lost_on_the_way(adapted, monkeypatch):
    monkeypatch.setattr(adapters, "load_adapters", lambda *_: None)
    assert broken(adapted.check(), "adapters", CheckpointError, "do not survive being saved and loaded")


def test_memory_that_is_not_there(parts, monkeypatch):
    for free, verdict in ((1_000, "FAILED"), (500_000, "warning"), (10**9, "ok")):
        monkeypatch.setattr(checks, "free_memory", lambda device, free=free: free)
        report = parts.check(num_examples=8)
        assert report["memory"].verdict == verdict, report["memory"].finding
        if verdict != "ok":
            assert "lower training.max_tokens (128)" in report["memory"].finding
    assert report["memory"].finding.startswith("0.00 GiB = weights 0.00 + gradients")


def test_the_recipe_stops_at_a_failed_check_and_prints_the_table(tmp_path, capsys):
    path = write_recipe(tmp_path)
    with pytest.raises(DataError, match="longer than max_tokens = 8"):
        main(path, ["training.max_tokens=8"])
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert "label mask" in printed
    assert not (tmp_path / "out").exists()


def test_an_example_in_print():
    processor = tiny_processor(semantic=False)
    example = processor.encode_plain_text("good morning")
    assert describe_example(example, processor) == "loss    | good morning<eos>"


def test_an_extended_base_is_no_base(tmp_path):
    path = write_recipe(tmp_path, max_steps=1)
    out = main(path)
    assert getattr(load_extended_lm(load_config(UnifiedTrainConfig, path)).model.config, EXTENDED_KEY)
    with pytest.raises(
        VocabularyError, match=r"already extended by the vocabulary .*, another than .*; set start_from"
    ):
        main(path, [f"model.source={out}", f"out={tmp_path / 'more'}"])


def test_adapters_go_on_and_not_on_another_base(tmp_path):
    path = write_recipe(tmp_path, max_steps=2)
    main(path, ["lora={rank: 2}"])
    folder = tmp_path / "out.training" / "adapter"
    more = [f"out={tmp_path / 'more'}", "lora.start_from=" + str(folder), "lora.rank=2"]
    main(path, more)
    with pytest.raises(CheckpointError, match=r"were trained with base \w+, this model has \w+; load them on the"):
        main(path, [*more, "model.seed=1", f"out={tmp_path / 'other'}"])
    with pytest.raises(CheckpointError, match=r"do not fit: .*give lora the settings"):
        main(path, [*more, "lora.rank=3", f"out={tmp_path / 'other'}"])
    with pytest.raises(CheckpointError, match="holds no adapters of ours"):
        main(path, [*more, f"lora.start_from={tmp_path}", f"out={tmp_path / 'other'}"])
