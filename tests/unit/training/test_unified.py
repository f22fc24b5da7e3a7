import dataclasses
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from recipes.train_unified import main
from speechllm.data.collate import Collator, collate_rows
from speechllm.data.mixture import Mixture, MixtureComponent, MixtureConfig
from speechllm.data.packing import PackedRows
from speechllm.data.row_store import RowStore
from speechllm.data.tokenize import TokenRow
from speechllm.errors import CheckpointError, ConfigError, DataError, TrainingError
from speechllm.hub import load_checkpoint
from speechllm.models.adapters import LoraSettings
from speechllm.models.causal_lm import BaseModelConfig, load_base_lm
from speechllm.processor import EncodedExample
from speechllm.training.optim import OptimizerConfig
from speechllm.training.text_lm import TextLMConfig, pretrain_text_lm
from speechllm.training.trainer import TrainingConfig, UnifiedTrainer, curve, last_checkpoint, target_losses
from speechllm.training.unified import UnifiedTrainConfig, finished_model, make_trainer
from tests.support.tiny import NUM_CODES, tiny_checkpoint, tiny_model, tiny_processor

TASKS = ("ASR", "AST", "TTS", "ASR AST S2ST")


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(semantic=False)


@pytest.fixture(scope="module")
def mixture(processor):
    generator = np.random.default_rng(0)
    rows = [
        TokenRow(
            id=f"r{i}",
            split="train",
            language="en",
            text=("good morning", "turn on the light")[i % 2],
            codes=np.repeat(generator.integers(NUM_CODES, size=4), 2),
            translation_language="fr",
            translation_text=("bonjour", "allume la lumière")[i % 2],
            translation_codes=generator.integers(NUM_CODES, size=5),
        )
        for i in range(6)
    ]
    config = MixtureConfig(components=[MixtureComponent(tasks=task, folder="f") for task in TASKS])
    return Mixture(config, processor, [RowStore.of(rows)] * len(TASKS))


def unified_config(folder, *, lora=None, optimizer=None, **training):
    options = {"max_steps": 6, "max_tokens": 96, "rows_per_batch": 2, "warmup_steps": 2, "log_every": 2, **training}
    return UnifiedTrainConfig(
        out=str(folder / "out"),
        start_from="unused",
        mixture=MixtureConfig(components=[MixtureComponent(tasks="ASR", folder="f")]),
        training=TrainingConfig(cpu=True, show_progress=False, **options),
        optimizer=optimizer or OptimizerConfig(kind="muon", learning_rate=5e-3),
        lora=lora,
    )


def trained(mixture, folder, **options):
    model = tiny_model(mixture.processor.vocabulary.size)
    trainer = make_trainer(model, mixture, unified_config(folder, **options))
    history = trainer.run()
    return finished_model(trainer), history


def equal(a, b):
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


def test_loss_is_the_models_own_loss(mixture):
    model = tiny_model(mixture.processor.vocabulary.size)
    batch = collate_rows([[mixture.example(i) for i in range(3)], [mixture.example(3)]], pad_id=0)
    with torch.no_grad():
        output = model(**batch, use_cache=False)
        losses, targets, places = target_losses(model, batch, model.get_output_embeddings())
    assert losses.mean().item() == pytest.approx(output.loss.item(), rel=1e-6)
    assert len(places) == len(targets) == sum(int(mixture.example(i).loss_mask.sum()) for i in range(4))
    assert torch.equal(batch["labels"].flatten()[places + 1], targets)
    logits = model(**batch, use_cache=False).logits
    assert logits.shape[:2] == batch["labels"].shape, "the model must make all logits again"


def test_gradients_are_those_of_the_models_own_loss(mixture):
    """Filling the places up must not reach the gradients."""
    batch = collate_rows([[mixture.example(i) for i in range(3)], [mixture.example(3)]], pad_id=0)
    own, ours = (tiny_model(mixture.processor.vocabulary.size) for _ in range(2))
    own(**batch, use_cache=False).loss.backward()
    target_losses(ours, batch, ours.get_output_embeddings())[0].mean().backward()
    for (name, a), b in zip(own.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-7, msg=name)


def test_training_learns_and_logs_text_and_audio_apart_and_by_task(mixture, tmp_path):
    model, history = trained(mixture, tmp_path, max_steps=40, log_every=10)
    losses = [value for _, value in curve(history, "loss")]
    assert losses[-1] < 0.6 * losses[0]
    line = history[0]
    assert {"loss_text", "loss_audio", "loss_text/ASR", "loss_audio/TTS", "loss_audio/ASR-AST-S2ST"} <= set(line)
    assert "loss_audio/ASR" not in line
    assert line["tokens_per_second"] > 0
    assert 0.5 < line["non_pad_share"] <= 1
    low, high = sorted([line["loss_text"], line["loss_audio"]])
    assert low <= line["loss"] <= high
    assert model.config.use_cache, "the saved model must decode with a cache again"


def test_bf16_leaves_a_float32_model(mixture, tmp_path):
    model, history = trained(mixture, tmp_path, bf16=True)
    ids = torch.from_numpy(mixture.example(0).input_ids)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, type(model).forward(model, ids).logits)
    assert np.isfinite(curve(history, "loss")[-1][1])


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_resume_equals_uninterrupted(mixture, tmp_path, kind):
    optimizer = OptimizerConfig(kind=kind, learning_rate=5e-3)
    straight, history = trained(mixture, tmp_path / "a", save_every=3, optimizer=optimizer)
    kept = tmp_path / "a" / "out.training" / "checkpoint-3"
    shutil.copytree(kept, tmp_path / "b" / "out.training" / "checkpoint-3")
    half = tmp_path / "b" / "out.training" / "checkpoint-5"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"cut")
    resumed, again = trained(mixture, tmp_path / "b", save_every=3, optimizer=optimizer)
    assert equal(straight, resumed)
    assert curve(again, "loss")[-1] == curve(history, "loss")[-1]
    assert not half.exists()


def test_gradient_accumulation_is_one_larger_batch(mixture, tmp_path):
    optimizer = OptimizerConfig(kind="adamw", learning_rate=1e-3, eps=1e-4)
    whole, _ = trained(mixture, tmp_path / "a", rows_per_batch=4, optimizer=optimizer)
    parts, _ = trained(mixture, tmp_path / "b", rows_per_batch=1, gradient_accumulation=4, optimizer=optimizer)
    # The same sums in another order; eps keeps AdamW from blowing up gradients near zero.
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, parts.state_dict()[name], atol=2e-5), name


def test_lora_ends_as_a_stock_model_with_old_rows_untouched(mixture, tmp_path):
    before = tiny_model(mixture.processor.vocabulary.size)
    model, _ = trained(mixture, tmp_path, lora=LoraSettings(rank=2))
    assert type(model) is type(before)
    text = mixture.processor.vocabulary["text"].size
    rows, old = (m.get_input_embeddings().weight for m in (model, before))
    assert torch.equal(rows[:text], old[:text])
    assert not torch.equal(rows[text:], old[text:])


def test_a_loss_that_is_not_finite_stops_at_its_step(mixture, tmp_path):
    model = tiny_model(mixture.processor.vocabulary.size)
    trainer = make_trainer(model, mixture, unified_config(tmp_path))
    nn.init.constant_(model.get_output_embeddings().weight, float("nan"))
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        trainer.run()


def test_text_lm_learns_its_sentences_and_reloads(tmp_path):
    config = TextLMConfig(
        vocab_size=280,
        model=BaseModelConfig(hidden_size=32, num_layers=1, num_heads=2),
        training=TrainingConfig(max_steps=60, max_tokens=48, rows_per_batch=4, cpu=True, show_progress=False),
    )
    texts = ["good morning", "bonjour tout le monde", "il est midi"]
    history = pretrain_text_lm(texts, config, tmp_path / "lm")
    losses = [value for _, value in curve(history, "loss")]
    assert losses[-1] < 0.5 * losses[0]
    model, tokenizer = load_base_lm(BaseModelConfig(source=str(tmp_path / "lm")))
    ids = torch.tensor([[*tokenizer(texts[1])["input_ids"], tokenizer.eos_token_id]])
    with torch.no_grad():
        seen, unseen = model(ids, labels=ids).loss, model(ids.flip(1), labels=ids.flip(1)).loss
    assert seen < 0.8 * unseen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lm"]
    (tmp_path / "lm" / "history.json").write_text("[]")
    pretrain_text_lm(
        texts, dataclasses.replace(config, training=dataclasses.replace(config.training, max_steps=1)), tmp_path / "lm"
    )
    with pytest.raises(DataError, match="no text"):
        pretrain_text_lm([" "], config, tmp_path / "none")


def test_last_checkpoint_of_nothing(tmp_path):
    assert last_checkpoint(tmp_path / "absent") is None


def test_config_errors():
    mixture_config = MixtureConfig(components=[MixtureComponent(tasks="ASR", folder="f")])
    with pytest.raises(ConfigError, match="semantic_tokenizer is missing"):
        UnifiedTrainConfig(out="x", mixture=mixture_config, training=TrainingConfig(max_steps=1))
    with pytest.raises(ConfigError, match="max_steps = 0"):
        TrainingConfig(max_steps=0)


def test_plain_rows_train_without_a_vocabulary(tmp_path, processor):
    example = EncodedExample(np.arange(10), np.ones(10, bool))
    config = TrainingConfig(max_steps=2, max_tokens=32, rows_per_batch=1, log_every=1, cpu=True, show_progress=False)
    rows = PackedRows(lambda i: example, 32)
    trainer = UnifiedTrainer(tiny_model(40), rows, Collator(pad_id=0), None, config, OptimizerConfig(), tmp_path)
    assert "loss_audio" not in trainer.run()[0]


def test_flash_attention_wants_rows_alone(mixture, tmp_path):
    """transformers looks for packed examples in batches of one row; in others they would see each other."""
    model = tiny_model(mixture.processor.vocabulary.size)
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ConfigError, match="rows_per_batch is 2; set it to 1"):
        make_trainer(model, mixture, unified_config(tmp_path))
    make_trainer(model, mixture, unified_config(tmp_path, rows_per_batch=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 64}, r"training\.max_tokens = 96, the config has 64"),
        ({"seed": 1}, r"training\.seed = 0, the config has 1"),
        ({"optimizer": OptimizerConfig(learning_rate=1e-2)}, r"optimizer\.kind = 'muon', the config has 'adamw'"),
    ],
)
def test_a_run_goes_on_under_its_own_settings_alone(mixture, tmp_path, options, message):
    trained(mixture, tmp_path, save_every=3)
    trained(mixture, tmp_path, save_every=2, log_every=1)
    with pytest.raises(CheckpointError, match=message):
        trained(mixture, tmp_path, **options)


def test_a_run_does_not_go_on_with_other_data(mixture, tmp_path):
    config = unified_config(tmp_path, save_every=3)
    for folder in ("f", "g"):
        component = MixtureComponent(tasks="ASR", folder=folder)
        config = dataclasses.replace(config, mixture=MixtureConfig(components=[component]))
        trainer = make_trainer(tiny_model(mixture.processor.vocabulary.size), mixture, config)
        if folder == "f":
            trainer.run()
    with pytest.raises(CheckpointError, match=r"mixture\.components\.0\.folder = 'f', the config has 'g'"):
        trainer.run()


def test_a_folder_that_is_no_text_lm_is_not_replaced(tmp_path):
    config = TextLMConfig(training=TrainingConfig(max_steps=1, cpu=True, show_progress=False))
    for name in ("thesis.tex", "config.json"):
        (tmp_path / "work" / "figures").mkdir(parents=True, exist_ok=True)
        (tmp_path / "work" / name).write_text("{}")
        with pytest.raises(CheckpointError, match="holds figures and is no text LM"):
            pretrain_text_lm(["good morning"], config, tmp_path / "work")
    assert (tmp_path / "work" / "thesis.tex").exists()


def write_recipe(tmp_path, **training):
    """Write tokens, base LM and config for the recipe; returns the config's path."""
    from speechllm.audio import save_audio
    from speechllm.config import save_config
    from speechllm.data.prepare import prepare_corpus
    from speechllm.data.records import Record, Translation
    from speechllm.data.tokenize import tokenize_corpus
    from tests.support.tiny import tiny_semantic_tokenizer, tiny_speech, tiny_text_tokenizer

    wav = tmp_path / "a.wav"
    save_audio(tiny_speech(seconds=0.6), wav)
    records = [
        Record(
            id=f"r{i}",
            split="train",
            language="en",
            text="one two",
            audio=wav,
            translation=Translation("fr", "un deux", wav),
        )
        for i in range(4)
    ]
    prepare_corpus(records, tmp_path / "corpus")
    tokenizer = tiny_semantic_tokenizer()
    tokenizer.save_pretrained(tmp_path / "semantic")
    tokenize_corpus(tmp_path / "corpus", tokenizer, tmp_path / "tokens")
    tiny_text_tokenizer().save_pretrained(tmp_path / "text")
    components = [MixtureComponent(tasks=task, folder=str(tmp_path / "tokens")) for task in TASKS]
    options = {"max_steps": 4, "max_tokens": 128, "rows_per_batch": 1, "log_every": 1, **training}
    config = UnifiedTrainConfig(
        out=str(tmp_path / "out"),
        semantic_tokenizer=str(tmp_path / "semantic"),
        model=BaseModelConfig(text_tokenizer=str(tmp_path / "text"), hidden_size=32, num_layers=1, num_heads=2),
        mixture=MixtureConfig(components=components),
        training=TrainingConfig(cpu=True, show_progress=False, **options),
    )
    save_config(config, tmp_path / "config.yaml")
    return tmp_path / "config.yaml"


def test_the_recipe_writes_a_checkpoint_that_reloads_and_can_be_trained_further(tmp_path):
    path = write_recipe(tmp_path)
    out = main(path)
    checkpoint = load_checkpoint(out)
    assert checkpoint.processor.vocabulary.size == checkpoint.model.config.vocab_size
    stock = AutoModelForCausalLM.from_pretrained(out)
    assert equal(stock, checkpoint.model)
    written = (out / "model.safetensors").stat().st_mtime_ns
    assert main(path, ["training.show_progress=true"]) == out
    for remembered in ("in its run", "in the checkpoint alone"):
        with pytest.raises(ConfigError, match=r"was made with training\.max_steps = 4, the config has 5"):
            main(path, ["training.max_steps=5"])
        if remembered == "in its run":
            shutil.rmtree(tmp_path / "out.training")
    assert (out / "model.safetensors").stat().st_mtime_ns == written
    more = main(path, [f"out={tmp_path / 'more'}", f"start_from={out}"])
    assert load_checkpoint(more).trained == checkpoint.trained
    assert not equal(load_checkpoint(more).model, checkpoint.model)


def test_a_checkpoint_remembers_all_that_it_was_trained_for(tmp_path):
    path = write_recipe(tmp_path, max_steps=1)
    first = load_checkpoint(main(path)).trained
    both = ("en-fr", "fr-en")
    assert dict(first.tasks) == {"ASR": ("en", "fr"), "AST": both, "TTS": ("en", "fr"), "ASR AST S2ST": both}
    assert first.longest_seconds == pytest.approx(0.6)
    more = [{"tasks": "MT", "folder": str(tmp_path / "tokens"), "directions": ["en-fr"]}]
    further = [f"out={tmp_path / 'further'}", f"start_from={tmp_path / 'out'}", f"mixture.components={more}"]
    second = load_checkpoint(main(path, further)).trained
    assert dict(second.tasks) == {**first.tasks, "MT": ("en-fr",)}
    assert second.longest_seconds == first.longest_seconds
    old = tiny_checkpoint(tmp_path / "old")
    unknown = load_checkpoint(main(path, [f"out={tmp_path / 'unknown'}", f"start_from={old}"])).trained
    assert unknown is None, "nobody knows what came before"


def test_training_further_keeps_the_voice(tmp_path):
    path = write_recipe(tmp_path, max_steps=1)
    start = tiny_checkpoint(tmp_path / "start", acoustic=True)
    out = load_checkpoint(main(path, [f"start_from={start}"]))
    before = load_checkpoint(start)
    assert out.codec.fingerprint == before.codec.fingerprint
    assert equal(out.acoustic, before.acoustic)


def test_a_checkpoint_gets_the_sound_that_it_is_given(tmp_path):
    path = write_recipe(tmp_path, max_steps=1)
    sound = tiny_checkpoint(tmp_path / "start", acoustic=True)
    out = load_checkpoint(main(path, [f"sound={sound}"]))
    before = load_checkpoint(sound)
    assert out.codec.fingerprint == before.codec.fingerprint
    assert equal(out.acoustic, before.acoustic)
    with pytest.raises(ConfigError, match="sound and start_from are both set"):
        main(path, [f"out={tmp_path / 'other'}", f"sound={sound}", f"start_from={sound}"])


@pytest.mark.parametrize(
    ("error", "first"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."), "2.00 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "can't allocate memory"),
    ],
)
def test_running_out_of_memory_says_what_to_lower(mixture, tmp_path, monkeypatch, error, first):
    def step(*_, **__):
        raise error

    monkeypatch.setattr(UnifiedTrainer, "training_step", step)
    with pytest.raises(TrainingError, match="out of memory") as caught:
        trained(mixture, tmp_path, lora=LoraSettings(rank=2))
    message = str(caught.value)
    assert first in message
    assert "GPU 0 has" not in message
    for way in ("rows_per_batch (2;", "max_tokens (96)", "gradient_checkpointing", "bf16", "lora.four_bit"):
        assert way in message
    with pytest.raises(TrainingError, match=r"adafactor or adamw8bit, train adapters instead \(lora\)"):
        trained(mixture, tmp_path / "full")


def test_other_errors_of_torch_stay_what_they_are(mixture, tmp_path, monkeypatch):
    def step(*_, **__):
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(UnifiedTrainer, "training_step", step)
    with pytest.raises(RuntimeError, match="size mismatch") as caught:
        trained(mixture, tmp_path)
    assert type(caught.value) is RuntimeError


def test_batches_made_ahead_are_the_same(mixture, tmp_path):
    plain, history = trained(mixture, tmp_path / "a", save_every=3)
    ahead, _ = trained(mixture, tmp_path / "b", save_every=3, prefetch=2)
    assert equal(plain, ahead)
    shutil.copytree(tmp_path / "b/out.training/checkpoint-3", tmp_path / "c/out.training/checkpoint-3")
    resumed, again = trained(mixture, tmp_path / "c", save_every=3, prefetch=2)
    assert equal(plain, resumed)
    assert "examples_too_long" in history[0]
    assert "examples_too_long" not in again[-2]
    with pytest.raises(ConfigError, match="prefetch = -1"):
        TrainingConfig(max_steps=1, prefetch=-1)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)], ids=["full", "lora"])
def test_gradient_checkpointing_changes_nothing_but_memory(mixture, tmp_path, lora):
    plain, _ = trained(mixture, tmp_path / "a", lora=lora)
    again, _ = trained(mixture, tmp_path / "b", lora=lora, gradient_checkpointing=True)
    assert equal(plain, again)


def test_one_process_with_several_gpus_is_refused(mixture, tmp_path, monkeypatch):
    """torch's DataParallel cuts the batch, and the places of the targets would point elsewhere."""
    from transformers import TrainingArguments

    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(ConfigError, match="accelerate launch"):
        trained(mixture, tmp_path, max_steps=1)
