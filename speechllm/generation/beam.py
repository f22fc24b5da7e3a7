"""Beam search over the leading text parts of a grammar; what follows is decoded from the best beam.

    decoder.decode(prompts, grammars, DecodingConfig(num_beams=4))

Each prompt keeps `num_beams` open texts. In every step all their continuations are ranked by the sum of log
probabilities; those that end the text move to the prompt's finished list, scored per length ** length_penalty (Wu et
al., arXiv:1609.08144, section 7, with plain length). A prompt is done when it has `num_beams` finished texts. Audio is
never searched: the likeliest code sequence is not the best-sounding one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from speechllm.generation.decoded import Decoded, decoded_from
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.grammar import Grammar, Progress
from speechllm.generation.running_batch import DecodableLM, ModelInputs, block, decode_in_batches
from speechllm.nn.precision import widest_float

Candidate: TypeAlias = tuple[int, int, float]
"(row that is continued, id, sum of log probabilities)."


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A finished text: its ids with the closing mark, the sum of log probabilities, why its parts ended."""

    ids: tuple[int, ...]
    log_probability: float
    stops: tuple[str, ...]


@dataclass(eq=False)
class _Beams:
    """The finished texts of one prompt, and what remains open in this step."""

    num_beams: int
    length_penalty: float
    finished: list[Hypothesis] = field(default_factory=list)
    is_done: bool = False

    def best(self) -> Hypothesis:
        """Return the finished text with the best score."""
        return max(self.finished, key=lambda h: h.log_probability / len(h.ids) ** self.length_penalty)


def decode_with_beams(
    lm: DecodableLM,
    prompts: Sequence[np.ndarray],
    grammars: Sequence[Grammar],
    config: DecodingConfig,
    places: Sequence[int],
) -> list[Decoded]:
    """Decode with beam search where the grammar starts with text, otherwise by `decode_in_batches`."""
    leading = [_num_leading_text_parts(grammar) for grammar in grammars]
    searched = [i for i, count in enumerate(leading) if count]
    texts: dict[int, Hypothesis] = {}
    per_batch = max(config.batch_size // config.num_beams, 1)
    for start in range(0, len(searched), per_batch):
        numbers = searched[start : start + per_batch]
        found = _search(lm, [prompts[i] for i in numbers], [grammars[i] for i in numbers], config)
        texts.update(zip(numbers, found, strict=True))
    rests = [i for i in range(len(prompts)) if leading[i] < len(grammars[i])]
    longer = [np.concatenate([prompts[i], texts[i].ids if i in texts else []]).astype(np.int64) for i in rests]
    parts = [grammars[i][leading[i] :] for i in rests]
    tails = decode_in_batches(lm, longer, parts, config, [places[i] for i in rests])
    rest_of = dict(zip(rests, tails, strict=True))
    return [_joined(lm, texts.get(i), rest_of.get(i), grammars[i]) for i in range(len(prompts))]


def _joined(lm: DecodableLM, text: Hypothesis | None, rest: Decoded | None, grammar: Grammar) -> Decoded:
    if text is None:
        assert rest is not None, "a grammar has at least one part"
        return rest
    ids, stops, score = np.array(text.ids, dtype=np.int64), list(text.stops), text.log_probability
    if rest is not None:
        ids = np.concatenate([ids, rest.ids])
        stops.append("closed" if rest.stop_reason == "eos" else rest.stop_reason)
        score += rest.score
    return decoded_from(lm.processor, ids, grammar, stops, score)


def _search(
    lm: DecodableLM, prompts: Sequence[np.ndarray], grammars: Sequence[Grammar], config: DecodingConfig
) -> list[Hypothesis]:
    """Return the best text of each prompt. Rows are laid out [prompt, beam]."""
    B, K = len(prompts), config.num_beams
    inputs = ModelInputs(lm, prompts)
    forward = lm.forward()
    progress = Progress(list(grammars), config.limits(lm.frame_rate), lm.processor.closing_ids)
    row_ids, blocked = lm.rows[0].ids.tolist(), lm.rows[0].blocked.to(inputs.device)
    beams = [_Beams(K, config.length_penalty) for _ in prompts]
    room = [lm.max_positions - len(p) if lm.max_positions else None for p in prompts]
    written: list[tuple[int, ...]] = [()] * B
    wide = widest_float(inputs.device)
    totals = torch.zeros(B, dtype=wide, device=inputs.device)
    while True:
        (logits,) = forward([(None, 0)], inputs.model_inputs())
        log_probs = (logits.float() + block(blocked, progress.states())).log_softmax(-1).to(wide)
        ranked = _ranked((totals[:, None] + log_probs).view(B, -1), 2 * K)
        rows: list[int] = []
        tokens: list[int] = []
        sums: list[float] = []
        for b, beam in enumerate(beams):
            width = len(written) // B
            candidates = [(b * width + i // len(row_ids), row_ids[i % len(row_ids)], total) for i, total in ranked[b]]
            for row, token, total in _kept(beam, candidates, written, progress, room[b]):
                rows.append(row)
                tokens.append(token)
                sums.append(total)
        if all(beam.is_done for beam in beams):
            return [beam.best() for beam in beams]
        inputs.select(torch.tensor(rows, device=inputs.device))
        inputs.append(torch.tensor(tokens, device=inputs.device))
        progress = progress.select(np.array(rows))
        progress.advance(np.array(tokens))
        written = [(*written[row], token) for row, token in zip(rows, tokens, strict=True)]
        totals = torch.tensor(sums, dtype=wide, device=inputs.device)


def _ranked(totals: Float[Tensor, "B C"], count: int) -> list[list[tuple[int, float]]]:
    """Return for each prompt its best continuations, (flat index, sum of log probabilities), best first."""
    best, index = totals.topk(min(count, totals.shape[1]), dim=1)
    return [list(zip(i, t, strict=True)) for i, t in zip(index.tolist(), best.tolist(), strict=True)]


def _kept(
    beam: _Beams,
    candidates: Sequence[Candidate],
    written: Sequence[tuple[int, ...]],
    progress: Progress,
    room: int | None,
) -> list[Candidate]:
    """Move texts that end to the finished ones and return `num_beams` continuations.

    Places that nothing fills (the prompt is done, or few continuations are legal) hold a copy that weighs -inf.
    """
    kept: list[Candidate] = []
    closing = progress.closing()
    for rank, (row, token, total) in enumerate(candidates):
        if beam.is_done or total == -math.inf or len(kept) == beam.num_beams:
            break
        ids, stops = (*written[row], token), tuple(progress.stops[row])
        if token == closing[row] and progress.part[row] == _num_leading_text_parts(progress.grammars[row]) - 1:
            # A text that ends counts only among the first: else every search would end with short ones.
            if rank < beam.num_beams:
                beam.finished.append(Hypothesis(ids, total, (*stops, progress.closing_reason(row))))
        elif room is not None and len(ids) >= room:
            beam.finished.append(Hypothesis(ids, total, (*stops, "too_long")))
        else:
            kept.append((row, token, total))
    beam.is_done = beam.is_done or len(beam.finished) >= beam.num_beams or (not kept and bool(beam.finished))
    spare = (candidates[0][0], int(closing[candidates[0][0]]), -math.inf)
    return kept + [spare] * (beam.num_beams - len(kept))


def _num_leading_text_parts(grammar: Grammar) -> int:
    return next((i for i, modality in enumerate(grammar) if modality != "text"), len(grammar))
