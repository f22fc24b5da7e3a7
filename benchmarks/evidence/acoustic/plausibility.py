"""How much what is heard is like something that the grammar could say.

    grammar = SpokenGrammar(every_text("en"), make_normaliser("spoken", "en"))
    grammar.known_words("the bank is blosed")             # (3, 4)
    grammar.errors("k is closed on friday the muse")      # (0, 30): the end of a sentence, then the start of one

Errors are the fewest edits of letters that lead to a stretch of sentences said one after another, from anywhere in the
first of them to anywhere in the last: speech that is cut out of speech has no whole sentences at its ends. The divisor
is the number of letters heard. Blanks are letters. Any text at all is some way from the nearest such stretch, so that
what that way is for nonsense has to stand beside it.
"""

import itertools
from collections.abc import Iterable

import numpy as np

from speechllm.metrics.normalise import Normaliser


class SpokenGrammar:
    """All sentences as one tree of letters, each of them closed by a blank, after which any of them may begin."""

    def __init__(self, texts: Iterable[str], normalise: Normaliser):
        self._normalise = normalise
        sentences = sorted({normalise(text) for text in texts})
        self.words = {word for sentence in sentences for word in sentence.split()}
        # Prefixes by length, so that the nodes of a level lie side by side behind those of the level above; 0 is "".
        prefixes = sorted({f"{text} "[:n] for text in sentences for n in range(len(text) + 2)}, key=len)
        place = {prefix: i for i, prefix in enumerate(prefixes)}
        self._letters = np.array([prefix[-1:] for prefix in prefixes])
        self._parents = np.array([place[prefix[:-1]] for prefix in prefixes])
        self._ends = np.array([place[f"{text} "] for text in sentences])
        starts = np.searchsorted([len(prefix) for prefix in prefixes], range(1, len(prefixes[-1]) + 2))
        self._levels = [slice(a, b) for a, b in itertools.pairwise(starts)]

    def words_of(self, heard: str) -> list[str]:
        """Return the words of what is heard, spelt as here."""
        return self._normalise(heard).split()

    def known_words(self, heard: str) -> tuple[int, int]:
        """Return how many of the words are the grammar's, and how many words there are."""
        words = self.words_of(heard)
        return sum(word in self.words for word in words), len(words)

    def errors(self, heard: str) -> tuple[int, int]:
        """Return the fewest edits between what is heard and what could be said, and the number of letters heard."""
        text = self._normalise(heard)
        is_letter = {letter: self._letters == letter for letter in set(text)}
        costs = np.zeros(len(self._letters), np.int16)
        for letter in text:
            costs = self._settled(np.minimum(costs + 1, costs[self._parents] + ~is_letter[letter]))
        return int(costs.min()), len(text)

    def _settled(self, costs: np.ndarray) -> np.ndarray:
        """Return the costs where letters of the grammar may also be left out, and sentences follow one another."""
        costs[0] = min(costs[0], costs[self._ends].min())
        while True:
            for level in self._levels:
                np.minimum(costs[level], costs[self._parents[level]] + 1, out=costs[level])
            end = costs[self._ends].min()
            if end >= costs[0]:
                return costs
            costs[0] = end
