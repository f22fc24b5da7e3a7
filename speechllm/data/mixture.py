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

Rows stay on disk (row_store.py). What is in memory is, for each component, one bit for each row and direction and an
order of at most 4 MB (row_order.py): the same for a corpus of any size that there is.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from speechllm.data.plain_text import is_plain_text
from speechllm.data.row_order import Chosen, ShuffledOrder
from speechllm.data.row_store import RowStore, open_plain_text, open_tokens
from speechllm.data.tokenize import TokenRow
from speechllm.errors import ConfigError, DataError
from speechllm.processor import EncodedExample, UnifiedProcessor
from speechllm.segments import PLAIN_TEXT, CodeSegment, Example, Segment, TextSegment
from speechllm.tasks import Field, TaskTag, language_code
from speechllm.vocabulary import SEMANTIC

BLOCK = 1024
"Examples per block: the resolution of the shares."
COLUMNS: dict[Field, str] = {
    "audio": "codes", "transcript": "text", "translated_audio": "translation_codes", "translation": "translation_text"
}  # fmt: skip
"Where a field of a row stands that is not read in reverse; `TokenRow.fields` has the same for one row."


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


@dataclass(frozen=True, eq=False)
class Use:
    """What can be drawn of a batch of rows read in one direction."""

    tasks: str
    languages: list[tuple[str, str | None]]
    "Of each row, source and target."
    num_codes: Int[np.ndarray, " R"]
    "Of the speech on the source side; 0 where there is none."
    seconds: Float[np.ndarray, " R"]
    "How long it is."


class Mixture:
    """An endless, random-access sequence of encoded examples."""

    def __init__(self, config: MixtureConfig, processor: UnifiedProcessor, stores: Sequence[RowStore]):
        """`stores` have the rows of each component, in the order of `config.components`."""
        self.config, self.processor, self.stores = config, processor, stores
        self._chosen = [_chosen(component, part) for component, part in zip(config.components, stores, strict=True)]
        self._columns = [[_columns(component, reverse) for reverse in (False, True)] for component in config.components]
        self._orders = [ShuffledOrder([config.seed, i], size) for i, size in enumerate(self.sizes)]
        self.shares = _shares(config, self.sizes)
        self._counts = _block_counts(self.shares)

    @property
    def sizes(self) -> list[int]:
        """How many different examples each component has."""
        return [len(chosen) for chosen in self._chosen]

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
        chosen = self._chosen[component]
        index_in_store = self._orders[component](*divmod(draw, len(chosen)))
        batch, place, reverse = chosen[index_in_store]
        row = self.stores[component].row(batch, place, self._columns[component][int(reverse)])
        example = _task_example(self.config.components[component].tasks, row, reverse)
        if self.config.code_noise:
            example = self._with_noise(example, index)
        return example

    def uses(self) -> Iterator[Use]:
        """Yield all that can be drawn, batch by batch; plain text has no task and is left out."""
        for component, store, chosen, share in zip(
            self.config.components, self.stores, self._chosen, self.shares, strict=True
        ):
            if share > 0 and component.tasks != PLAIN_TEXT:
                for batch, mask in zip(store.batches(), chosen.masks(), strict=True):
                    for reverse in (False, True):
                        yield _use(component.tasks, batch, np.flatnonzero(mask[:, int(reverse)]), reverse)

    def spoken_sides(self, limit: int) -> Iterator[tuple[float, int]]:
        """Yield (seconds, number of codes) of spoken sides of up to `limit` rows of each component."""
        for store in self.stores:
            for row in islice(store.rows(), limit):
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
    """Return the mixture over the token shards of every component (each folder and split is opened once).

    Raises:
        DataError: a component has no example, its tokens were made by another semantic tokenizer, or the cache of
            `row_store` cannot be written.
    """
    semantic = processor.semantic_tokenizer
    fingerprint = semantic.fingerprint if semantic is not None else None

    @functools.cache
    def store(folder: str, split: str, plain: bool) -> RowStore:
        if plain:
            return open_plain_text(folder, split)
        return open_tokens(folder, split, expected_fingerprint=fingerprint)

    plain = [component.tasks == PLAIN_TEXT and is_plain_text(component.folder) for component in config.components]
    stores = [store(part.folder, part.split, flag) for part, flag in zip(config.components, plain, strict=True)]
    return Mixture(config, processor, stores)


def _chosen(component: MixtureComponent, store: RowStore) -> Chosen:
    """Return every row and direction that has what the component's tasks need."""
    if component.tasks == PLAIN_TEXT:
        return _chosen_texts(component, store)
    tag = TaskTag.of(component.tasks, "en", "fr")
    needed: set[Field] = {tag.source, *tag.targets}
    wanted = None if component.directions is None else [_direction(d, tag, component) for d in component.directions]
    chosen = Chosen(
        np.stack([_usable(batch, needed, wanted, reverse) for reverse in (False, True)], axis=1)
        for batch in store.batches()
    )
    if not len(chosen):
        raise DataError(
            f"component {component.name} has no example among {store.num_rows} rows; it needs the fields "
            f"{', '.join(sorted(needed))}: check tasks, split and directions"
        )
    return chosen


def _usable(
    batch: pa.RecordBatch, needed: set[Field], wanted: Sequence[tuple[str, str | None]] | None, reverse: bool
) -> Bool[np.ndarray, " R"]:
    """Return which rows have all of the fields, in one of the wanted languages or pairs."""
    usable = np.ones(batch.num_rows, bool)
    for field in needed:
        column = batch.column(_side(COLUMNS[field], reverse))
        usable &= _lengths(column) > 0
    if wanted is not None:
        sides = [np.array(batch.column(_side(name, reverse))) for name in ("language", "translation_language")]
        usable &= np.any([(sides[0] == a) & ((b is None) | (sides[1] == b)) for a, b in wanted], axis=0)
    return usable


def _use(tasks: str, batch: pa.RecordBatch, rows: Int[np.ndarray, " R"], reverse: bool) -> Use:
    """Return what a mixture can draw of some rows of a batch."""
    source, target, codes, seconds = (
        batch.column(_side(name, reverse)).take(pa.array(rows))
        for name in ("language", "translation_language", "codes", "duration_seconds")
    )
    languages = list(zip(source.to_pylist(), target.to_pylist(), strict=True))
    return Use(tasks, languages, _lengths(codes), seconds.fill_null(0.0).to_numpy(zero_copy_only=False))


def _lengths(column: pa.Array) -> Int[np.ndarray, " R"]:
    """Return the length of each text or list of codes, 0 where there is none."""
    function = "list_value_length" if pa.types.is_list(column.type) else "binary_length"
    return pc.call_function(function, [column]).fill_null(0).to_numpy(zero_copy_only=False)


def _columns(component: MixtureComponent, reverse: bool) -> list[str]:
    """Return what has to be read of a row."""
    fields: set[Field] = {"transcript"}
    if component.tasks != PLAIN_TEXT:
        tag = TaskTag.of(component.tasks, "en", "fr")
        fields = {tag.source, *tag.targets}
    texts_and_codes = [_side(COLUMNS[field], reverse) for field in sorted(fields)]
    return ["id", "split", "language", "translation_language", *texts_and_codes]


def _side(column: str, reverse: bool) -> str:
    """Return the column of the other side if the row is read in reverse."""
    if not reverse:
        return column
    return column.removeprefix("translation_") if column.startswith("translation_") else f"translation_{column}"


def _chosen_texts(component: MixtureComponent, store: RowStore) -> Chosen:
    """Return every side of a row that has text, in one of the wanted languages."""
    wanted = None if component.directions is None else {language_code(part) for part in component.directions}

    def usable(batch: pa.RecordBatch, reverse: bool) -> list[bool]:
        columns = (batch.column(_side(name, reverse)).to_pylist() for name in ("text", "language"))
        return [
            bool(text and text.strip()) and (wanted is None or language in wanted)
            for text, language in zip(*columns, strict=True)
        ]

    chosen = Chosen(np.array([usable(batch, False), usable(batch, True)]).T for batch in store.batches())
    if not len(chosen):
        raise DataError(
            f"component {component.name} has no text among {store.num_rows} rows; check split and directions"
        )
    return chosen


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
