"""Draw several spoken answers and keep the one whose words the model itself hears best.

    decoded = decode_best(decoder, TaskTag.of("TTS", "en"), prompts, texts, config)     # config.candidates is set

A small LM that speaks greedily drops and swaps words. The same LM also recognises speech, so it can say how likely the
wanted text is given the codes that it drew: log p(text | codes) under [ASR ...]. The likeliest of a few draws is
kept. TorToiSe (arXiv:2305.07243) reranks its draws by a second model; here the LM is its own judge. That needs a known
text: TTS reads it, a chain such as [ASR AST S2ST ...] has written it. Direct S2ST has none: one answer, as ever.
"""

import dataclasses
import inspect
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoded import Decoded
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.running_batch import DecodableLM, ModelInputs
from speechllm.segments import CodeSegment, TextSegment
from speechllm.tasks import Field, TaskTag

TEXT_OF: dict[Field, Field] = {"audio": "transcript", "translated_audio": "translation"}
"The field whose text a spoken field says."


def known_text(tag: TaskTag) -> Field | None:
    """Return the field whose text the spoken output of a task says, if the task has that text before it speaks."""
    spoken = _spoken_part(tag)
    if spoken is None:
        return None
    text = TEXT_OF[tag.targets[spoken]]
    return text if text in (tag.source, *tag.targets[:spoken]) else None


def recognition_tag(tag: TaskTag) -> TaskTag | None:
    """Return the task by which the model hears its own answers to another; None if what they say is not known."""
    spoken = _spoken_part(tag)
    if spoken is None or known_text(tag) is None:
        return None
    return TaskTag.of("ASR", tag.output_language(tag.targets[spoken]))


def _spoken_part(tag: TaskTag) -> int | None:
    """Return the place of the first spoken field among the targets."""
    return next((i for i, name in enumerate(tag.targets) if name in TEXT_OF), None)


def decode_best(
    decoder: LMDecoder, tag: TaskTag, prompts: Sequence[np.ndarray], inputs: Sequence[str], config: DecodingConfig
) -> list[Decoded]:
    """Decode every prompt `config.candidates.count` times and return the best of each.

    Args:
        decoder: of a model that was also trained on ASR in the language that is spoken.
        tag: a task with `known_text`.
        prompts: ids int64 [T] each.
        inputs: the texts behind the prompts; only read where the task's input is the text that is spoken.
        config: `candidates` is set.
    """
    field, spoken, candidates = known_text(tag), _spoken_part(tag), config.candidates
    recognition = recognition_tag(tag)
    assert recognition is not None, "the caller asks first"
    assert field is not None
    assert spoken is not None
    assert candidates is not None
    count = candidates.count
    draws = dataclasses.replace(config, audio=candidates.sampling, candidates=None)
    repeated = [prompt for prompt in prompts for _ in range(count)]
    places = list(range(count)) * len(prompts) if config.same_draws else None
    decoded = decoder.decode(repeated, [tag.output_modalities] * len(repeated), draws, places)
    if field == tag.source:
        texts = [text for text in inputs for _ in range(count)]
    else:
        texts = [_text(one, tag.targets.index(field)) for one in decoded]
    scores = hearing_scores(
        decoder.lm, recognition, [_codes(one, spoken) for one in decoded], texts, batch_size=config.batch_size
    )
    # what a guard had to end is chosen only if nothing ended by itself
    ended = np.array([one.stop_reason == "eos" for one in decoded])
    ranks = np.lexsort((-scores, ~ended)).argsort()
    return [decoded[start + int(ranks[start : start + count].argmin())] for start in range(0, len(decoded), count)]


def hearing_scores(
    lm: DecodableLM, recognition: TaskTag, codes: Sequence[np.ndarray], texts: Sequence[str], *, batch_size: int = 32
) -> Float[np.ndarray, " B"]:
    """Return log p(text | codes), natural, for each pair; -inf without codes or where both exceed the context.

    Args:
        lm: its model may be in training mode; it is left as it was.
        recognition: the tag under which it listens, [ASR ...].
        codes: semantic codes [T] each.
        texts: what they should say.
        batch_size: pairs in one pass.
    """
    targets = [lm.processor.encode_target([TextSegment(text)]) for text in texts]
    rows = [
        np.concatenate([lm.processor.encode_prompt(recognition.prompt(one)), target])
        for one, target in zip(codes, targets, strict=True)
    ]
    limit = lm.max_positions or max(map(len, rows), default=0)
    scores = np.full(len(rows), -np.inf)
    fitting = [i for i, row in enumerate(rows) if len(codes[i]) and len(row) <= limit]
    with lm.evaluating():
        for start in range(0, len(fitting), batch_size):
            chosen = fitting[start : start + batch_size]
            lengths = [len(targets[i]) for i in chosen]
            scores[chosen] = _target_scores(lm, [rows[i] for i in chosen], lengths)
    return scores


def _target_scores(lm: DecodableLM, rows: list[np.ndarray], lengths: list[int]) -> Float[np.ndarray, " B"]:
    """Return the log probability of the last `lengths[b]` ids of each row."""
    batch = ModelInputs(lm, rows, reserve=0)
    ids, longest = batch.ids, max(lengths)
    inputs = batch.model_inputs()
    if "logits_to_keep" in inspect.signature(lm.model.forward).parameters:
        inputs["logits_to_keep"] = longest + 1
    # rows are padded on the left, so all targets end together
    log_probs = lm.model(**inputs).logits[:, -longest - 1 : -1].float().log_softmax(-1)
    wanted = log_probs.gather(-1, ids[:, -longest:, None])[..., 0].cpu().numpy()
    is_target = np.arange(longest) >= longest - np.array(lengths)[:, None]
    return np.where(is_target, wanted, 0).sum(1)


def _text(decoded: Decoded, part: int) -> str:
    segment = decoded.segments[part]
    assert isinstance(segment, TextSegment), "the tag says that this part is text"
    return segment.text


def _codes(decoded: Decoded, part: int) -> np.ndarray:
    segment = decoded.segments[part]
    assert isinstance(segment, CodeSegment), "the tag says that this part is audio"
    return segment.codes
