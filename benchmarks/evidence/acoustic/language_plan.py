"""How much of what is trained and measured about AudioLM's first stage and about the phones in tokens.

plan = Budget().language
plan.steps, plan.num_pairs
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LanguageBudget:
    """The same for every seed."""

    steps: int = 200
    "Of the semantic stage."
    batch_size: int = 16
    learning_rate: float = 4e-3
    code_noise: float = 0.0
    "Share of random codes among those that it reads, in training."
    joined_seconds: float = 6.0
    "Sentences are laid end to end up to this length and the sentence that reaches it."
    num_joinings: int = 4
    "So often, in other orders."
    num_pairs: int = 100
    "Sentences of each kind of pair, of which one is right."
    num_continuations: int = 10
    "Prompts of each split that are continued."
    continued_seconds: float = 6.0
    "What is added to a prompt, at most; length of unconditional speech."
    num_unconditional: int = 10
    "Pieces of speech from nothing."
    num_phone_sentences: int = 30
    "New sentences, each spoken by every speaker, known and unseen, in which letters are looked for."
    triples_per_cell: int = 6
    "Of two letters in one context by one speaker, or by two."
