"""The ways to train: what is frozen stays bit-identical, what stopped goes on exactly, what is merged is the same."""

import dataclasses
import importlib.util
import shutil

import numpy as np
import pytest
import torch
import yaml

from recipes.train_unified import main
from speechllm.config import build_config, config_to_dict, load_config
from speechllm.data.mixture import Mixture, MixtureComponent, MixtureConfig
from speechllm.data.row_store import RowStore
from speechllm.data.tokenize import TokenRow
from speechllm.errors import ConfigError
from speechllm.hub import load_checkpoint
from speechllm.models.adapters import LoraSettings
from speechllm.training.dropout import residual_dropout
from speechllm.training.optim import OptimizerConfig
from speechllm.training.trainer import TrainingConfig, curve
from speechllm.training.unified import UnifiedTrainConfig, finished_model, load_extended_lm, make_trainer
from tests.support.tiny import NUM_CODES, SIZES, tiny_model, tiny_processor
from tests.unit.training.test_unified import write_recipe

PROCESSOR = tiny_processor(semantic=False)
TEXT_ROWS = PROCESSOR.vocabulary["text"].size
TASKS = ("ASR", "TTS", "text")
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)

WAYS = {
    "full": {"optimizer": {"kind": "muon", "learning_rate": 5e-3}},
    "adafactor": {"optimizer": {"kind": "adafactor", "learning_rate": 5e-3}, "dropout": 0.1},
    "lora": {"lora": {"rank": 2}},
    "qlora": {"lora": {"rank": 2, "four_bit": "nf4"}},
    "adamw8bit": {"optimizer": {"kind": "adamw8bit", "learning_rate": 5e-3}},
    "rows": {"only_new_rows": True},
    "frozen": {"freeze": ["model.layers.0.*", "lm_head"], "optimizer": {"kind": "muon", "weight_decay": 0.1}},
}
ALL_WAYS = [pytest.param(way, marks=needs_bitsandbytes if way in ("qlora", "adamw8bit") else ()) for way in WAYS]


@pytest.fixture(scope="module")
def mixture():
    generator = np.random.default_rng(0)
    texts = ("good morning", "turn on the light")
    rows = [
        TokenRow(
            id=f"r{i}", split="train", language="en", text=texts[i % 2], codes=generator.integers(NUM_CODES, size=7)
        )
        for i in range(6)
    ]
    config = MixtureConfig(components=[MixtureComponent(tasks=task, folder="f") for task in TASKS])
    return Mixture(config, PROCESSOR, [RowStore.of(rows)] * len(TASKS))


def way_config(way, folder, **training):
    options = {"max_steps": 6, "max_tokens": 96, "rows_per_batch": 2, "warmup_steps": 2, "log_every": 2}
    settings = {"optimizer": {"kind": "adamw", "learning_rate": 5e-3}, **WAYS.get(way, {})}
    options |= {"cpu": True, "show_progress": False, "dropout": settings.pop("dropout", 0.0), **training}
    components = [{"tasks": task, "folder": "f"} for task in TASKS]
    mixture = {"components": components}
    data = {"out": str(folder / "out"), "start_from": "x", "mixture": mixture, "training": options, **settings}
    return build_config(UnifiedTrainConfig, data)


def trained(mixture, config):
    width = 32 if config.lora is None or config.lora.four_bit is None else 128
    trainer = make_trainer(tiny_model(PROCESSOR.vocabulary.size, width=width), mixture, config)
    history = trainer.run()
    return trainer, history


@pytest.mark.parametrize("way", ALL_WAYS)
def test_resume_equals_uninterrupted(mixture, tmp_path, way):
    configs = [way_config(way, tmp_path / name, save_every=3) for name in "ab"]
    straight, history = trained(mixture, configs[0])
    kept = "out.training/checkpoint-3"
    shutil.copytree(tmp_path / "a" / kept, tmp_path / "b" / kept)
    resumed, again = trained(mixture, configs[1])
    assert curve(again, "loss")[-1] == curve(history, "loss")[-1]
    models = [finished_model(trainer) for trainer in (straight, resumed)]
    states = [model.state_dict() for model in models]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert type(models[0]) is type(tiny_model(40))
    assert build_config(UnifiedTrainConfig, config_to_dict(configs[0])) == configs[0]


def moved(way, mixture, folder):
    before = tiny_model(PROCESSOR.vocabulary.size).state_dict()
    trainer, _ = trained(mixture, way_config(way, folder))
    after = finished_model(trainer).state_dict()
    return before, after, {name for name in before if not torch.equal(before[name], after[name])}


def test_frozen_modules_are_bit_identical_and_all_others_move(mixture, tmp_path):
    before, _, names = moved("frozen", mixture, tmp_path)
    assert names == {n for n in before if not n.startswith("model.layers.0.") and n != "lm_head.weight"}


@pytest.mark.parametrize("way", ["lora", "rows"])
def test_old_rows_are_bit_identical(mixture, tmp_path, way):
    before, after, names = moved(way, mixture, tmp_path)
    rows = {"model.embed_tokens.weight", "lm_head.weight"}
    assert rows <= names
    assert all(torch.equal(after[name][:TEXT_ROWS], before[name][:TEXT_ROWS]) for name in rows)
    assert (names == rows) == (way == "rows")
    assert not any("norm" in name for name in names)


@pytest.mark.parametrize("kind", ["adafactor", "muon", "adamw"])
def test_new_rows_alone_move_under_every_optimizer(mixture, tmp_path, kind):
    config = way_config("rows", tmp_path)
    optimizer = OptimizerConfig(kind=kind, learning_rate=1e-2, weight_decay=0.1)
    before = tiny_model(PROCESSOR.vocabulary.size).state_dict()
    trainer, _ = trained(mixture, dataclasses.replace(config, optimizer=optimizer))
    after = finished_model(trainer).state_dict()
    for name, value in after.items():
        has_rows = name in ("model.embed_tokens.weight", "lm_head.weight")
        kept = slice(0, TEXT_ROWS) if has_rows else slice(None)
        assert torch.equal(value[kept], before[name][kept]), name
        assert torch.isfinite(value).all()
        assert not has_rows or not torch.equal(value[TEXT_ROWS:], before[name][TEXT_ROWS:])


@pytest.mark.parametrize("way", [param for param in ALL_WAYS if "lora" in param.values[0]])
def test_merged_equals_unmerged(mixture, tmp_path, way):
    trainer, _ = trained(mixture, way_config(way, tmp_path))
    ids = torch.from_numpy(mixture.example(0).input_ids)[None]
    with torch.no_grad():
        unmerged = trainer.model.eval()(ids, use_cache=False).logits
        merged = finished_model(trainer)(ids, use_cache=False).logits
    torch.testing.assert_close(merged, unmerged, rtol=1e-3, atol=5e-4)


def test_replayed_text_keeps_the_model_writing(mixture, tmp_path):
    """The same base, the same tasks: with text among them its loss on text ends lower."""
    losses = {}
    sentences = [PROCESSOR.encode_plain_text(text).input_ids for text in ("good morning", "turn on the light")]
    for tasks in (("ASR", "TTS"), TASKS):
        config = MixtureConfig(components=[MixtureComponent(tasks=task, folder="f") for task in tasks])
        part = Mixture(config, PROCESSOR, [mixture.stores[0]] * len(tasks))
        trainer, history = trained(part, way_config("full", tmp_path / tasks[-1], max_steps=24, log_every=4))
        model = finished_model(trainer)
        with torch.no_grad():
            ids = [torch.from_numpy(sentence)[None] for sentence in sentences]
            losses[tasks] = sum(model(row, labels=row).loss.item() for row in ids)
        assert ("loss_text/text" in history[0]) == ("text" in tasks)
    assert losses[TASKS] < 0.7 * losses["ASR", "TTS"]


@pytest.mark.parametrize("family", SIZES)
def test_dropout_reaches_every_family_in_training_alone(family):
    model = tiny_model(40, family)
    ids = torch.arange(12)[None]
    for module in model.modules():  # the family's own, where it has some
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        before = model(ids).logits
        with residual_dropout(model, 0.3):
            assert torch.equal(model.eval()(ids).logits, before)
            torch.manual_seed(0)
            one, two = (model.train()(ids).logits for _ in range(2))
            assert not torch.allclose(one, two)
            assert not torch.allclose(one, before)
        assert torch.equal(model.eval()(ids).logits, before)
        assert not any(module._forward_hooks for module in model.modules())


def test_dropout_hits_embeddings_and_each_sublayer_once():
    model = tiny_model(40, "gpt2")
    with residual_dropout(model, 0.5):
        hooked = [name for name, module in model.named_modules() if module._forward_hooks]
    assert hooked == ["transformer.wte", *(f"transformer.h.{i}.{name}" for i in (0, 1) for name in ("attn", "mlp"))]
    with pytest.raises(ConfigError, match="has no module whose class ends in Attention or MLP"):  # noqa: SIM117
        with residual_dropout(Bare(), 0.5):
            pass


class Bare(torch.nn.Module):
    def get_input_embeddings(self):
        return torch.nn.Embedding(2, 2)


def test_the_recipe_takes_its_way_from_yaml(tmp_path):
    path = write_recipe(tmp_path)
    (tmp_path / "texts.jsonl").write_text('{"text": "good morning"}\n{"text": "bonjour"}\n')
    content = yaml.safe_load(path.read_text())
    content["mixture"]["components"].append({"tasks": "text", "folder": str(tmp_path / "texts.jsonl")})
    content["freeze"], content["unfreeze"] = ["model.layers.*"], ["*.mlp"]
    content["optimizer"] = {"kind": "adafactor", "learning_rate": 5e-5}
    content["training"] |= {"schedule": "constant_with_warmup", "warmup_steps": 0, "dropout": 0.1}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"did you mean 'model\.layers\.0\.\*'"):
        main(path, ["freeze=[model.layer.0.*]"])
    out = main(path, [f"out={tmp_path / 'other'}"])
    after = load_checkpoint(out).model
    before = load_extended_lm(load_config(UnifiedTrainConfig, path)).model.state_dict()
    stood = {name for name, value in after.state_dict().items() if torch.equal(value, before[name])}
    assert stood == {name for name in before if ".layers." in name and ".mlp." not in name}


def test_config_errors(tmp_path):
    config = way_config("full", tmp_path)
    with pytest.raises(ConfigError, match="freeze and lora are both set"):
        dataclasses.replace(config, freeze=["*"], lora=LoraSettings())
    with pytest.raises(ConfigError, match="freeze and only_new_rows are both set"):
        dataclasses.replace(config, freeze=["*"], only_new_rows=True)
    with pytest.raises(ConfigError, match="unfreeze is set without freeze"):
        dataclasses.replace(config, unfreeze=["*"])
    with pytest.raises(ConfigError, match=r"dropout = 1\.0, expected"):
        TrainingConfig(max_steps=1, dropout=1.0)
