"""A Llama with appended rows as a GGUF file, for llama.cpp and what is built on it.

    export_gguf(checkpoint.model, checkpoint.processor.text_tokenizer, checkpoint.processor.vocabulary, Path("lm.gguf"))

The file holds the LM alone: rows for audio and special ids are rows like all others. Which id is which sound, and which
ids may come next, stays with our processor: ids go in and ids come out (`speechllm.serving.llama_cpp`). So its token
table only serves to print ids, and no merges are written: llama.cpp's own tokenizer must not be used.
(GGUF and the tensor names: github.com/ggml-org/ggml, docs/gguf.md; package gguf.)
"""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from speechllm.errors import CheckpointError, MissingDependencyError
from speechllm.vocabulary import TEXT, Vocabulary

GGUFType: TypeAlias = Literal["f32", "f16"]
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
OTHER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def export_gguf(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: Vocabulary,
    path: Path,
    *,
    dtype: GGUFType = "f32",
) -> Path:
    """Write a Llama, whole or not at all; `f16` rounds the matrices (norms stay float32).

    Raises:
        MissingDependencyError: the package gguf is not installed.
        CheckpointError: the model is no plain Llama, or the file cannot be written.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError("gguf", "llama-cpp", "writing GGUF")
    import gguf

    _check_llama(model)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(partial, "llama")
        _write_sizes(writer, model.config, vocabulary)
        _write_tokens(writer, tokenizer, vocabulary)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32 if dtype == "f32" else gguf.LlamaFileType.MOSTLY_F16)
        for name, tensor in _tensors(model):
            half = dtype == "f16" and tensor.dim() > 1
            writer.add_tensor(name, tensor.numpy().astype(np.float16 if half else np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(partial, path)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _check_llama(model: PreTrainedModel) -> None:
    config: Any = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    wrong = None
    if config.model_type != "llama":
        wrong = f"it is a {config.model_type}; convert it with llama.cpp's convert_hf_to_gguf.py"
    elif rope.get("rope_type", "default") != "default":
        wrong = f"its rotary embedding is {rope['rope_type']!r}, only the plain one is written"
    elif config.attention_bias or config.mlp_bias:
        wrong = "it has biases"
    if wrong:
        raise CheckpointError(f"this LM cannot be written as GGUF here: {wrong}")


def _write_sizes(writer: Any, config: Any, vocabulary: Vocabulary) -> None:
    head = config.head_dim or config.hidden_size // config.num_attention_heads
    writer.add_name("speechllm")
    writer.add_description("ids only: read and write them with speechllm's processor")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float((config.rope_parameters or {}).get("rope_theta", 10_000.0)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(vocabulary.size)
    writer.add_string("speechllm.vocabulary_hash", vocabulary.hash)


def _write_tokens(writer: Any, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> None:
    """Give each id a name of its own; llama.cpp wants some table, though no text is ever read by it."""
    import gguf

    names, kinds, seen = [], [], set()
    known = {i: token for token, i in tokenizer.get_vocab().items()}
    for block in vocabulary.blocks:
        for number in range(block.size):
            name = known.get(number) if block.name == TEXT else None
            kind = gguf.TokenType.UNUSED if block.name == TEXT and name is None else gguf.TokenType.NORMAL
            name = name if name is not None and name not in seen else f"<|{block.name}_{number}|>"
            seen.add(name)
            names.append(name)
            kinds.append(kind if block.name == TEXT else gguf.TokenType.CONTROL)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(names)
    writer.add_token_scores([0.0] * len(names))
    writer.add_token_types(kinds)
    for number, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
    ):
        if number is not None:
            add(number)
    writer.add_add_bos_token(False)


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    config: Any = model.config
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        tensor = tensor.detach().to("cpu", torch.float32)
        parts = name.removesuffix(".weight").split(".")
        if parts[:2] != ["model", "layers"]:
            yield f"{OTHER_NAMES[name.removesuffix('.weight')]}.weight", tensor
            continue
        part = ".".join(parts[3:])
        if part in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = config.num_attention_heads if part.endswith("q_proj") else config.num_key_value_heads
            tensor = _interleaved(tensor, heads)
        yield f"blk.{parts[2]}.{LAYER_NAMES[part]}.weight", tensor.contiguous()


def _interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """Reorder the rows of each head: transformers rotates halves, GGUF's Llama rotates neighbours."""
    rows, width = weight.shape
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, width)
    return halves.transpose(1, 2).reshape(rows, width)
