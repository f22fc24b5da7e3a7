"""What AudioLM's first stage has learnt of the language: does it find the right sentence of a pair likelier?

    measure_likelihoods(seed=0, budget=budget, folders=folders)      # results/likelihoods-0.json

    series "<kind of pair>/<scorer>"     (1, 1) where the right one is likelier, (0, 1) where the wrong one is

    scorer                score of a sentence, repeats removed
    sum                   log probability of its codes after BOS
    mean                  the same for each code: a longer sentence is no worse
    frequencies, mean     mean logarithm of how often each code occurs in training: a model without order
    chance                one half

Both are spoken by one voice that the stage knows, and none of the right ones is in the training data. (AudioLM,
arXiv:2209.03143, table IV. It does not say whether scores are divided by lengths.)
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from benchmarks.evidence.acoustic.plan import Budget, Folders
from benchmarks.evidence.acoustic.semantic_stage import load_semantic, training_rows
from benchmarks.evidence.acoustic.word_pairs import speak_pairs, word_pairs
from benchmarks.evidence.acoustic.world import Series, save_series, training_texts
from benchmarks.evidence.parts import use_one_thread
from speechllm.data.tokenize import read_tokens
from speechllm.models.stage_layouts import remove_repeats
from speechllm.models.token_lm import TokenLM
from speechllm.tokenizers.semantic import SemanticTokenizer

SUM, MEAN, FREQUENCIES = "sum", "mean", "frequencies, mean"
SCORERS, CHANCE = (SUM, MEAN, FREQUENCIES), "chance"
BATCH_ROWS = 50


def measure_likelihoods(seed: int, budget: Budget, folders: Folders) -> None:
    """Score pairs that are drawn anew for every seed."""
    use_one_thread()
    tokenizer = SemanticTokenizer.from_pretrained(folders.semantic)
    lm = load_semantic(seed, folders, num_codes=tokenizer.codebook_size)
    frequencies = code_frequencies(folders, budget, tokenizer.codebook_size, seed)
    num_speakers = int(budget.quickstart_config().corpus.get("num_speakers", 12))
    series: dict[str, Series] = {}
    for kind, pairs in word_pairs(budget.language.num_pairs, avoid=training_texts(folders), seed=seed).items():
        spoken = speak_pairs(pairs, num_speakers=num_speakers, seed=seed)
        codes = [remove_repeats(one)[0] for sides in spoken for one in tokenizer.encode(sides)]
        log_probs = sentence_log_probs(lm, codes)
        scores = {
            SUM: [float(row.sum()) for row in log_probs],
            MEAN: [float(row.mean()) for row in log_probs],
            FREQUENCIES: [float(frequencies[row].mean()) for row in codes],
        }
        for scorer, found in scores.items():
            series[f"{kind}/{scorer}"] = [
                (0.5 * (1 + np.sign(right - wrong)), 1.0) for right, wrong in zip(found[::2], found[1::2], strict=True)
            ]
        series[f"{kind}/{CHANCE}"] = [(0.5, 1.0)] * len(pairs)
    held_out = sentence_log_probs(lm, held_out_codes(folders))
    series["held out/loss"] = [(-float(row.sum()), float(len(row))) for row in held_out]
    save_series(folders.result("likelihoods", seed), series)


def sentence_log_probs(lm: TokenLM, sentences: Sequence[Int[np.ndarray, " n"]]) -> list[Float[np.ndarray, " n"]]:
    """Return the log probability of every code of each sentence, given BOS and the codes before it."""
    found = []
    for start in range(0, len(sentences), BATCH_ROWS):
        batch = sentences[start : start + BATCH_ROWS]
        rows = [lm.layout.encode(np.zeros((0, 0), np.int64), codes[None], end=False) for codes in batch]
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.full((len(rows), int(lengths.max())), lm.layout.bos_id)
        for b, row in enumerate(rows):
            ids[b, : len(row)] = torch.from_numpy(row)
        with torch.no_grad():
            scores = lm(ids, torch.ones_like(lengths), lengths)
        found += [row[: len(codes)].numpy() for row, codes in zip(scores.log_probs, batch, strict=True)]
    return found


def code_frequencies(folders: Folders, budget: Budget, num_codes: int, seed: int) -> Float[np.ndarray, " N"]:
    """Return the logarithm of each code's share of the training codes; none is taken to be impossible."""
    rows = training_rows(folders, budget, 1.0, seed)
    counts = np.bincount(np.concatenate([row.semantic for row in rows]), minlength=num_codes) + 1.0
    return np.log(counts / counts.sum())


def held_out_codes(folders: Folders) -> list[Int[np.ndarray, " n"]]:
    """Return the English sentences of the test split, without repeats."""
    rows = read_tokens(folders.tokens, "test")
    return [remove_repeats(np.asarray(row.codes))[0] for row in rows if row.language == "en" and row.codes is not None]
