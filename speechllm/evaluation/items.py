"""What is evaluated: a seeded choice of items from a prepared corpus, by language and by direction.

    choice = choose_items("corpus/", "test", num_items=100, seed=0)
    choice.items(TaskTag.parse("[ASR French]"))            # up to 100 items with French speech and text
    choice.items(TaskTag.parse("[S2ST French English]"))   # from records in either direction

An item is chosen by the hash of its id and the seed: the same for every system, whatever the order of the corpus. Each
task chooses among the items that have what it needs, so tasks of a direction share items as far as their fields allow.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from speechllm.audio import AudioSource
from speechllm.data.prepare import read_corpus
from speechllm.data.records import Record, Translation
from speechllm.tasks import Field, TaskTag
from speechllm.tasks.task import FIELD_MODALITY

Direction = tuple[str, str | None]
"Source and target language, or a language and None."


@dataclass(frozen=True, eq=False)
class Item:
    """A record in one direction: what stands in each field."""

    id: str
    language: str
    target_language: str | None
    texts: dict[Field, str]
    audios: dict[Field, AudioSource]
    speakers: dict[Field, str] = field(default_factory=dict)
    label_sources: dict[Field, str] = field(default_factory=dict)
    "Who wrote the text: human, synthetic or pseudo (weak)."

    def has(self, name: Field) -> bool:
        """Return whether the field has content."""
        return name in (self.texts if FIELD_MODALITY[name] == "text" else self.audios)

    def audio_key(self, name: Field) -> str:
        """Return a name for the recording in a field: the same for both directions of a record."""
        language = self.target_language if name == "translated_audio" else self.language
        return f"{self.id}/{language}"


@dataclass(frozen=True)
class Choice:
    """The chosen items of a split."""

    split: str
    by_direction: dict[Direction, list[Item]]
    "Enough for every task, in the order of choice."
    num_items: int
    "How many a task gets."

    @property
    def directions(self) -> list[Direction]:
        """All directions, and all languages with None."""
        return sorted(self.by_direction, key=str)

    def items(self, tag: TaskTag, limit: int | None = None) -> list[Item]:
        """Return the first items that have what a task reads and writes, at most `limit`."""
        found = self.by_direction.get((tag.source_language, tag.target_language), [])
        needed: list[Field] = [tag.source, *(t for t in tag.targets if FIELD_MODALITY[t] == "text")]
        num_items = self.num_items if limit is None else min(limit, self.num_items)
        return [item for item in found if all(item.has(name) for name in needed)][:num_items]


def choose_items(corpus: str | Path, split: str, *, num_items: int, seed: int) -> Choice:
    """Read a split of a prepared corpus and choose up to `num_items` for each task of each direction and language.

    Raises:
        DataError: the folder is no corpus or has no such split.
    """
    return choose(read_corpus(corpus, split), split, num_items=num_items, seed=seed)


def choose(records: Iterable[Record], split: str, *, num_items: int, seed: int) -> Choice:
    """Choose among records.

    Holds only a few times `num_items` in memory, of each direction and each set of fields that an item has: whatever
    a task needs, its first `num_items` are among them.
    """
    ranked: dict[tuple[Direction, frozenset[Field]], list[tuple[str, Item]]] = {}
    for record in records:
        rank = hashlib.sha256(f"{seed}/{record.id}".encode()).hexdigest()
        for item in _both_directions(record):
            present = frozenset[Field]([*item.texts, *item.audios])
            directions: set[Direction] = {(item.language, None), (item.language, item.target_language)}
            for direction in directions:
                entries = ranked.setdefault((direction, present), [])
                entries.append((rank, item))
                if len(entries) > 4 * num_items + 100:
                    entries.sort(key=lambda entry: entry[0])
                    del entries[num_items:]
    chosen: dict[Direction, list[tuple[str, Item]]] = {}
    for (direction, _), found in ranked.items():
        chosen.setdefault(direction, []).extend(sorted(found, key=lambda entry: entry[0])[:num_items])
    by_direction = {
        direction: [item for _, item in sorted(found, key=lambda entry: entry[0])]
        for direction, found in chosen.items()
    }
    return Choice(split, by_direction, num_items)


def _both_directions(record: Record) -> list[Item]:
    items = [_item(record.id, record, record.translation)]
    if record.translation is not None:
        items.append(_item(record.id, record.translation, record))
    return items


def _item(identifier: str, source: Record | Translation, target: Record | Translation | None) -> Item:
    sides: list[tuple[Record | Translation | None, Field, Field]]
    sides = [(source, "transcript", "audio"), (target, "translation", "translated_audio")]
    texts: dict[Field, str] = {}
    audios: dict[Field, AudioSource] = {}
    speakers: dict[Field, str] = {}
    labels: dict[Field, str] = {}
    for side, text_field, audio_field in sides:
        if side is None:
            continue
        if side.text:
            texts[text_field], labels[text_field] = side.text, side.label_source
        if side.audio is not None:
            audios[audio_field], speakers[audio_field] = side.audio, side.speaker
    return Item(identifier, source.language, target.language if target else None, texts, audios, speakers, labels)
