"""A text LLM of our own, for when none can be had: a byte-level BPE tokenizer to go with a small Llama.

    tokenizer = train_bpe(sentences, vocab_size=600)
    tokenizer.decode(tokenizer("déjà vu")["input_ids"])     # "déjà vu": any text survives the round trip
    tokenizer.save_pretrained("text_lm")
    model, tokenizer = load_base_lm(BaseModelConfig(source="random", text_tokenizer="text_lm"))

Byte-level BPE (GPT-2) has no unknown token: what merges do not cover is spelled in bytes.
"""

from collections.abc import Iterable

from transformers import PreTrainedTokenizerFast

from speechllm.errors import ConfigError

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
NUM_BYTES = 256


def train_bpe(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with at most `vocab_size` tokens, three special ones included.

    Raises:
        ConfigError: `vocab_size` leaves no room for the bytes and the special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = [BOS, EOS, PAD]
    smallest = NUM_BYTES + len(special)
    if vocab_size < smallest:
        raise ConfigError(
            f"vocab_size = {vocab_size}, expected at least {smallest} (every byte and {len(special)} marks)"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
