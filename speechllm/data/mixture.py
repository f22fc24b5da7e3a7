"""The mixture: which task on which corpus how often, and example i as a function of (seed, i) alone.

    components:
      - {tasks: ASR, folder: tokens/pico, weight: 2}
      - {tasks: ASR AST S2ST, folder: tokens/pico, directions: [fr-en], weight: 1}
      - {tasks: text, folder: texts.jsonl, weight: 1}      # plain text, so that the LLM does not forget how to write

    mixture = load_mixture(config, processor)
    mixture.example(12_345)          # the same ids in every process, after every restart

Every block of 1024 examples holds each component's share of 1024, rounded, in shuffled order; and a
component goes through all of its examples, in a new order each time, before one comes again. So there is
no state to save: who has seen i examples continues at example i.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import numpy as np

from speechllm.data.plain_text import is_plain_text, read_plain_text
from speechllm.data.tokenize import TokenRow, read_tokens
from speechllm.errors import ConfigError, DataError
from speechllm.processor import EncodedExample, UnifiedProcessor
from speechllm.segments import PLAIN_TEXT, CodeSegment, Example, Segment, TextSegment
from speechllm.tasks import Field, TaskTag, language_code
from speechllm.vocabulary import SEMANTIC

BLOCK = 1024
"Examples per block: the resolution of the shares."
Candidate: TypeAlias = tuple[int, bool]
"Index of a row, and whether it is read in reverse (from its translation)."


@dataclass(frozen=True, kw_only=True)
class MixtureComponent:
    """One task (or chain of tasks) on one corpus."""

    tasks: str
    "Task names as in a tag, without languages: `ASR`, or a chain `ASR AST S2ST`; `text` for text without a task."
    folder: str
    "Folder of token shards; for `text` also a .txt or .jsonl file, or a folder of such files."
    split: str = "train"
    "Which part of the corpus, by the name that it has there."
    directions: list[str] | None = None
    "Pairs `fr-en` for tasks that translate, languages `fr` for the others; None: all that the corpus has."
    weight: float = 1.0
    "How often, relative to the other components (see `MixtureConfig.sampling`)."
    text_tokens: int = 256
    "For `text`: of longer texts a stretch of so many ids is taken, another one each time."

    @property
    def name(self) -> str:
        """How messages call this component."""
        where = f" {' '.join(self.directions)}" if self.directions else ""
        return f"[{self.tasks}{where}] on {self.folder}/{self.split}"


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Components and how their weights become shares."""

    components: list[MixtureComponent]
    "What is mixed."
    sampling: Literal["fixed", "proportional", "temperature"] = "fixed"
    "Share of a component: weight; weight x examples; weight x examples^(1/temperature)."
    temperature: float = 5.0
    "For `temperature`: 1 is proportional, large is uniform (arXiv:1907.05019, section 4)."
    code_noise: float = 0.0
    "Share of input codes replaced by random ones, against units that differ between voices."
    seed: int = 0
    "Of everything that is random here."

    def __post_init__(self) -> None:
        if not self.components:
            raise ConfigError("the mixture has no components; name at least one task and its folder of tokens")
        if self.temperature < 1:
            raise ConfigError(f"temperature = {self.temperature}, expected at least 1")
        if not 0 <= self.code_noise < 1:
            raise ConfigError(f"code_noise = {self.code_noise}, expected 0 or more and less than 1")
        for component in self.components:
            if component.weight < 0:
                raise ConfigError(f"{component.name}: weight = {component.weight}, expected 0 or more")
            if component.text_tokens < 2:
                raise ConfigError(f"{component.name}: text_tokens = {component.text_tokens}, expected at least 2")


class Mixture:
    """An endless, random-access sequence of encoded examples."""

    def __init__(self, config: MixtureConfig, processor: UnifiedProcessor, rows: Sequence[Sequence[TokenRow]]):
        """`rows` are those of each component, in the order of `config.components`."""
        self.config, self.processor = config, processor
        self._rows = [list(part) for part in rows]
        self._candidates = [
            _candidates(component, part) for component, part in zip(config.components, self._rows, strict=True)
        ]
        self.shares = _shares(config, [len(candidates) for candidates in self._candidates])
        self._counts = _block_counts(self.shares)

    @property
    def sizes(self) -> list[int]:
        """How many different examples each component has."""
        return [len(candidates) for candidates in self._candidates]

    def example(self, index: int) -> EncodedExample:
        """Return example `index` as ids."""
        example = self.segments(index)
        if example.tag != PLAIN_TEXT:
            return self.processor.encode(example)
        (segment,) = cast(tuple[TextSegment], example.target)
        encoded = self.processor.encode_plain_text(segment.text)
        longest = self.config.components[self._draw(index)[0]].text_tokens
        if len(encoded) <= longest:
            return encoded
        start = int(np.random.default_rng([self.config.seed, index, 4]).integers(len(encoded) - longest + 1))
        span = slice(start, start + longest)
        return EncodedExample(encoded.input_ids[span], encoded.loss_mask[span], encoded.tag)

    def segments(self, index: int) -> Example:
        """Return example `index` before it becomes ids."""
        component, draw = self._draw(index)
        candidates = self._candidates[component]
        epoch, place = divmod(draw, len(candidates))
        row, reverse = candidates[_order(self.config.seed, component, epoch, len(candidates))[place]]
        example = _task_example(self.config.components[component].tasks, self._rows[component][row], reverse)
        if self.config.code_noise:
            example = self._with_noise(example, index)
        return example

    def uses(self) -> Iterator[tuple[str, TokenRow, bool]]:
        """Yield (tasks, row, whether in reverse) of all that can be drawn; plain text has no task and is left out."""
        for component, rows, candidates, share in zip(
            self.config.components, self._rows, self._candidates, self.shares, strict=True
        ):
            if share > 0 and component.tasks != PLAIN_TEXT:
                yield from ((component.tasks, rows[index], reverse) for index, reverse in candidates)

    def spoken_sides(self, limit: int) -> Iterator[tuple[float, int]]:
        """Yield (seconds, number of codes) of spoken sides of up to `limit` rows of each component."""
        for rows in self._rows:
            for row in rows[:limit]:
                if row.codes is not None:
                    yield row.duration_seconds, len(row.codes)
                if row.translation_codes is not None:
                    yield row.translation_duration_seconds, len(row.translation_codes)

    def _draw(self, index: int) -> tuple[int, int]:
        """Return the component of example `index`, and how many examples of it came before."""
        block, place = divmod(index, BLOCK)
        components, earlier = _block_order(self.config.seed, block, self._counts)
        component = int(components[place])
        return component, block * self._counts[component] + int(earlier[place])

    def _with_noise(self, example: Example, index: int) -> Example:
        generator = np.random.default_rng([self.config.seed, index, 2])
        num_codes = self.processor.vocabulary[SEMANTIC].size
        prompt = []
        for segment in example.prompt:
            if isinstance(segment, CodeSegment):
                random = generator.integers(num_codes, size=len(segment.codes))
                hit = generator.random(len(segment.codes)) < self.config.code_noise
                segment = CodeSegment(np.where(hit, random, segment.codes), segment.block)
            prompt.append(segment)
        return Example(tuple(prompt), example.target, example.tag)


def load_mixture(config: MixtureConfig, processor: UnifiedProcessor) -> Mixture:
    """Read the token shards of every component (each folder and split once) into a mixture.

    Raises:
        DataError: a component has no example, or its tokens were made by another semantic tokenizer.
    """
    semantic = processor.semantic_tokenizer
    fingerprint = semantic.fingerprint if semantic is not None else None

    @functools.cache
    def read(folder: str, split: str, plain: bool) -> list[TokenRow]:
        if plain:
            return list(read_plain_text(folder, split))
        return list(read_tokens(folder, split, expected_fingerprint=fingerprint))

    plain = [component.tasks == PLAIN_TEXT and is_plain_text(component.folder) for component in config.components]
    rows = [read(part.folder, part.split, flag) for part, flag in zip(config.components, plain, strict=True)]
    return Mixture(config, processor, rows)


def _candidates(component: MixtureComponent, rows: Sequence[TokenRow]) -> list[Candidate]:
    """Return every (row, direction) that has what the component's tasks need."""
    if component.tasks == PLAIN_TEXT:
        return _plain_candidates(component, rows)
    tag = TaskTag.of(component.tasks, "en", "fr")
    needed = {tag.source, *tag.targets}
    wanted = None if component.directions is None else {_direction(d, tag, component) for d in component.directions}
    candidates = []
    for index, row in enumerate(rows):
        for reverse in (False, True):
            fields = row.fields(reverse)
            source, target = row.languages(reverse)
            spoken = (source, target if tag.target_language else None)
            if all(field in fields and len(fields[field]) for field in needed) and (wanted is None or spoken in wanted):
                candidates.append((index, reverse))
    if not candidates:
        raise DataError(
            f"component {component.name} has no example among {len(rows)} rows; it needs the fields "
            f"{', '.join(sorted(needed))}: check tasks, split and directions"
        )
    return candidates


def _plain_candidates(component: MixtureComponent, rows: Sequence[TokenRow]) -> list[Candidate]:
    """Return every side of a row that has text, in one of the wanted languages."""
    wanted = None if component.directions is None else {language_code(part) for part in component.directions}
    candidates = [
        (index, reverse)
        for index, row in enumerate(rows)
        for reverse in (False, True)
        if str(row.fields(reverse).get("transcript", "")).strip()
        and (wanted is None or row.languages(reverse)[0] in wanted)
    ]
    if not candidates:
        raise DataError(f"component {component.name} has no text among {len(rows)} rows; check split and directions")
    return candidates


def _direction(text: str, tag: TaskTag, component: MixtureComponent) -> tuple[str, str | None]:
    codes = [language_code(part) for part in text.split("-")]
    expected = 2 if tag.target_language else 1
    if len(codes) != expected:
        form = "a pair such as 'fr-en'" if expected == 2 else "one language such as 'fr'"
        raise ConfigError(f"component {component.name}: direction {text!r}, expected {form}")
    return codes[0], codes[1] if expected == 2 else None


def _task_example(tasks: str, row: TokenRow, reverse: bool) -> Example:
    source, target = row.languages(reverse)
    fields = row.fields(reverse)
    if tasks == PLAIN_TEXT:
        return Example((), (TextSegment(str(fields["transcript"])),), PLAIN_TEXT)
    segments: dict[Field, Segment | str | Sequence[int]] = {
        field: value if isinstance(value, str) else CodeSegment(value) for field, value in fields.items()
    }
    assert source is not None, "only sides that exist are candidates"
    return TaskTag.of(tasks, source, target).example(segments)


def _shares(config: MixtureConfig, sizes: Sequence[int]) -> np.ndarray:
    exponent = {"fixed": 0.0, "proportional": 1.0, "temperature": 1 / config.temperature}[config.sampling]
    weights = np.array([c.weight * size**exponent for c, size in zip(config.components, sizes, strict=True)])
    if not weights.sum() > 0:
        names = "; ".join(component.name for component in config.components)
        raise ConfigError(f"the mixture's weights sum to {weights.sum()}: {names}; give one of them a weight above 0")
    return weights / weights.sum()


def _block_counts(shares: np.ndarray) -> tuple[int, ...]:
    """Return how many examples of a block each component has: at least 1 where its share is above 0."""
    counts = np.where(shares > 0, np.maximum(np.floor(shares * BLOCK), 1), 0).astype(np.int64)
    while counts.sum() != BLOCK:
        step = 1 if counts.sum() < BLOCK else -1
        # The component that is furthest from its share gives or takes one; none goes to 0.
        gap = step * (shares * BLOCK - counts)
        gap[(shares == 0) | ((step < 0) & (counts <= 1))] = -np.inf
        counts[gap.argmax()] += step
    return tuple(counts.tolist())


@functools.lru_cache(maxsize=16)
def _block_order(seed: int, block: int, counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the component at each place of a block, and how many of the same stand before it in the block."""
    components = np.random.default_rng([seed, block, 1]).permutation(np.repeat(np.arange(len(counts)), counts))
    earlier = np.empty(BLOCK, np.int64)
    for component, count in enumerate(counts):
        earlier[components == component] = np.arange(count)
    return components, earlier


@functools.lru_cache(maxsize=256)
def _order(seed: int, component: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, component, epoch, 3]).permutation(size)
