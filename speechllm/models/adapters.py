"""LoRA on the trunk while only the new rows of the embedding matrices train.

    model = extend_causal_lm(model, vocabulary, init="centroid", ...)
    model = add_adapters(model, vocabulary, LoraSettings(rank=16))      # peft model; old rows are frozen
    ...                                                                 # train
    save_adapters(model, vocabulary, folder)                            # megabytes; load_adapters is its inverse
    model = merge_adapters(model)                                       # a stock causal LM again

With `four_bit` the frozen matrices stand in four bits while adapters train; what is merged has stock matrices again.
The rows are trained through peft's `trainable_token_indices`, which stores them alone: an adapter of
megabytes where `modules_to_save` would store (and could untie) whole matrices.
(LoRA: arXiv:2106.09685. QLoRA: arXiv:2305.14314. That frozen trunks do worse than trained ones: arXiv:2306.12925,
section 5.)
"""

import hashlib
import json
import tempfile
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from speechllm.errors import CheckpointError, ConfigError
from speechllm.models.causal_lm import num_text_rows
from speechllm.models.four_bit import FourBitKind, dequantized_linear, is_four_bit, quantize_trunk, replace_module
from speechllm.vocabulary import TEXT, Vocabulary

ADAPTER_MANIFEST = "speechllm_adapter.json"
"Beside adapters: the vocabulary and the base that they belong to."
WEIGHTS = "adapter_model.safetensors"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Size of the adapters."""

    rank: int = 16
    "Inner width of each pair of LoRA matrices."
    alpha: float = 32.0
    "Scale: an adapter's output is multiplied by alpha / rank."
    dropout: float = 0.0
    "Dropout before each adapter."
    target_modules: str | list[str] = "all-linear"
    "Layers that get an adapter (peft's names); all-linear: every linear layer but the output head."
    train_new_rows: bool = True
    "Train the rows of the non-text ids. Without it audio rows stay as they were initialised."
    four_bit: FourBitKind | None = None
    "Keep the frozen matrices in four bits (QLoRA), through bitsandbytes. Made for CUDA; on a CPU it is slow."
    start_from: str | None = None
    "Folder of adapters (`<out>.training/adapter` of an earlier run on the same base) to go on from."


def add_adapters(model: PreTrainedModel, vocabulary: Vocabulary, settings: LoraSettings, *, seed: int = 0) -> nn.Module:
    """Wrap `model` (already extended) into a peft model.

    Raises:
        ConfigError: the model's rows are not those of the vocabulary.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    rows = num_text_rows(model)
    if rows != vocabulary.size:
        raise ConfigError(
            f"the model has {rows:,} rows, the vocabulary {vocabulary.size:,} ids; call extend_causal_lm first"
        )
    if settings.four_bit is not None:
        quantize_trunk(model, settings.four_bit)
    indices = _new_row_indices(model, vocabulary) if settings.train_new_rows else None
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=settings.rank,
        lora_alpha=cast(int, settings.alpha),
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        trainable_token_indices=indices,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Experts of a mixture are one tensor, which "all-linear" does not reach: peft expected it to.
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys did not match", RuntimeWarning)
        torch.manual_seed(seed)
        adapted = cast(nn.Module, get_peft_model(model, config))
    # The base on disk has fewer rows, so peft would add whole matrices; the rows that are trained are stored as such.
    cast(Any, adapted).save_pretrained = partial(cast(Any, adapted).save_pretrained, save_embedding_layers=False)
    _keep_head_bias(adapted)
    if settings.start_from is not None:
        load_adapters(adapted, vocabulary, settings.start_from)
    return adapted


def save_adapters(model: nn.Module, vocabulary: Vocabulary, folder: str | Path) -> Path:
    """Write the adapters of what `add_adapters` returned, new rows included, with what they belong to."""
    folder = Path(folder)
    cast(Any, model).save_pretrained(folder)
    belongs = {"format_version": FORMAT_VERSION, "vocabulary": vocabulary.hash, "base": base_fingerprint(model)}
    (folder / ADAPTER_MANIFEST).write_text(json.dumps(belongs, indent=1) + "\n", encoding="utf-8")
    return folder


def load_adapters(model: nn.Module, vocabulary: Vocabulary, folder: str | Path) -> None:
    """Put saved adapters into what `add_adapters` returned for the same base with the same settings, in place.

    Raises:
        CheckpointError: no adapters there, or they belong to another base, vocabulary or size.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    folder = Path(folder)
    try:
        belongs = json.loads((folder / ADAPTER_MANIFEST).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder} holds no adapters of ours: no {ADAPTER_MANIFEST} can be read there") from error
    ours = {"format_version": FORMAT_VERSION, "vocabulary": vocabulary.hash, "base": base_fingerprint(model)}
    for name, value in ours.items():
        if belongs.get(name) != value:
            raise CheckpointError(
                f"the adapters in {folder} were trained with {name} {belongs.get(name)}, this model has {value}; "
                "load them on the model that they were trained on"
            )
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS}; copy the whole folder")
    try:
        set_peft_model_state_dict(cast(Any, model), load_peft_weights(str(folder), device="cpu"))
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"the adapters in {folder} do not fit: {' '.join(str(error).split())[:200]}; give lora the settings that "
            "they were trained with"
        ) from error


def base_fingerprint(model: nn.Module) -> str:
    """Return sixteen hex digits of the frozen base under adapters: of its norms and of some embeddings of text.

    These stand in full precision in every way to load a base. In bfloat16, so that a half-precision copy is the same.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if parameter.ndim == 1 and not parameter.requires_grad:
            digest.update(name.rpartition("base_model.model.")[2].encode() + _bits(parameter))
    digest.update(_bits(embedding_matrix(cast(Any, model).get_input_embeddings())[:64, :64]))
    return digest.hexdigest()[:16]


def embedding_matrix(layer: object) -> Tensor:
    """Return the whole matrix of an embedding or a head, below peft's layer for trained rows if there is one."""
    adapter = getattr(layer, "token_adapter", None)
    return cast(Any, layer if adapter is None else adapter.base_layer).weight


def _bits(values: Tensor) -> bytes:
    return values.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()


def check_round_trip(model: nn.Module, vocabulary: Vocabulary) -> None:
    """Draw the adapters at random, save, wipe and load them, and put back what was there.

    (As they begin, adapters do nothing: what was lost on the way would not be missed.)

    Raises:
        CheckpointError: the model does not give the same logits afterwards, bit for bit.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    generator = torch.Generator().manual_seed(0)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            for parameter in trained:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
            drawn = _probe(model, vocabulary)
            save_adapters(model, vocabulary, folder)
            for parameter in trained:
                parameter.zero_()
            wiped = _probe(model, vocabulary)
            load_adapters(model, vocabulary, folder)
            loaded = _probe(model, vocabulary)
    finally:
        model.train(was_training)
        with torch.no_grad():
            for parameter, value in zip(trained, before, strict=True):
                parameter.copy_(value)
    if torch.equal(drawn, wiped) or not torch.equal(drawn, loaded):
        raise CheckpointError(
            "the adapters do not survive being saved and loaded: the logits are others; "
            "check lora.target_modules, or train all parameters"
        )


def _probe(model: nn.Module, vocabulary: Vocabulary) -> Tensor:
    """Return logits for ids of every block."""
    ids = torch.linspace(0, vocabulary.size - 1, 16).long()[None].to(next(model.parameters()).device)
    return model(input_ids=ids, use_cache=False).logits


def _keep_head_bias(model: nn.Module) -> None:
    """Add the bias of the output layer where peft's layer around it, for trained rows, leaves it out (0.21 does)."""
    wrapper = cast(Any, model).get_output_embeddings()
    layer = getattr(wrapper, "original_module", wrapper)
    if getattr(layer, "bias", None) is None:
        return
    with torch.no_grad():
        nothing = wrapper(torch.zeros(1, layer.weight.shape[1]).to(layer.weight))
    if not torch.equal(nothing[0], layer.bias):
        wrapper.register_forward_hook(lambda _, inputs, output: output + layer.bias)


def train_new_rows_only(model: PreTrainedModel, vocabulary: Vocabulary) -> PreTrainedModel:
    """Freeze everything but the rows of the non-text ids, in place; old rows stay bit-identical in training.

    (With an optimizer that does not decay embeddings, as `build_optimizer`: a row without gradient stands still.)
    """
    model.requires_grad_(False)
    first = vocabulary[TEXT].stop
    for matrix in {id(m): m for m in _matrices(model)}.values():
        matrix.requires_grad_(True)
        matrix.register_hook(lambda gradient: torch.cat([torch.zeros_like(gradient[:first]), gradient[first:]]))
    return model


def _matrices(model: PreTrainedModel) -> list[nn.Parameter]:
    layers = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    return [cast(nn.Parameter, cast(Any, layer).weight) for layer in layers]


def merge_adapters(model: nn.Module) -> PreTrainedModel:
    """Return the stock causal LM with adapters and trained rows written into its weights."""
    merge = getattr(model, "merge_and_unload", None)
    if merge is None:
        raise ConfigError(f"{type(model).__name__} has no adapters to merge; pass what add_adapters returned")
    _fold_into_stock_layers(model)
    return cast(Any, merge)()


def _fold_into_stock_layers(model: nn.Module) -> None:
    """Put stock layers, adapters added, in the place of layers in four bits: peft would round the sum to four bits."""
    for name, layer in list(model.named_modules()):
        base = getattr(layer, "base_layer", layer)
        if not is_four_bit(base) or name.endswith(".base_layer"):
            continue
        linear = dequantized_linear(base)
        for adapter in getattr(layer, "active_adapters", ()):
            linear.weight.data += cast(Any, layer).get_delta_weight(adapter).detach().to(linear.weight)
        replace_module(model, name, linear)
    for module in model.modules():
        if getattr(module, "is_loaded_in_4bit", False) and isinstance(module, PreTrainedModel):
            cast(Any, module).is_loaded_in_4bit = False


def _new_row_indices(model: PreTrainedModel, vocabulary: Vocabulary) -> dict[str, list[int]]:
    """Return {module name: ids of the new rows} for the input matrix, and for the output matrix if untied."""
    new_ids = list(range(vocabulary[TEXT].stop, vocabulary.size))
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    wanted = {names[id(inputs)].rpartition(".")[2]: new_ids}
    tied = outputs is not None and cast(Any, outputs).weight is cast(Any, inputs).weight
    if outputs is not None and not tied:
        wanted[names[id(outputs)].rpartition(".")[2]] = new_ids
    return wanted
