"""The part of acoustic.md about AudioLM's first stage, what it continues, and letters in tokens."""

import json
import math
from statistics import mean

from benchmarks.evidence.acoustic.continuations import NOTHING, OURS, RANDOM
from benchmarks.evidence.acoustic.language_summary import continuations_table, letters_table, likelihoods_table
from benchmarks.evidence.acoustic.plan import PROMPT_SECONDS, SPLITS, Budget, Folders
from benchmarks.evidence.acoustic.summary import WHERE, Measure, Results, numbers, value
from benchmarks.evidence.acoustic.world import LANGUAGE
from benchmarks.measure import table
from data_prep.grammar import every_text

LOSS = Measure(label="nats a code")
NUM_EXAMPLES = 3


def language_section(results: Results, folders: Folders) -> str:
    """Return tables and examples."""
    losses = [value(LOSS, series["likelihoods/held out/loss"]) for series in results.values()]
    places = [
        f"Behind {PROMPT_SECONDS:g} s of {where}:\n\n{continuations_table(results, split)}"
        for split, where in WHERE.items()
    ]
    return f"""## Language

![pairs, continuations, letters; every seed a dot, the mean a bar](acoustic_language.png)

The semantic stage, on pairs of sentences that one voice speaks, of which the first is of the grammar and new, and the
second is not of it: how often the first is the likelier one. On held-out sentences its loss is
{numbers(losses, LOSS)} nats a code.

{likelihoods_table(results)}

{(chr(10) * 2).join(places)}

From nothing:

{continuations_table(results, NOTHING)}

"Real codes" are those of what the speaker really said next, spoken by the same coarse and fine stages: what a semantic
stage that draws as people speak would reach. (Drawn at 0.6, as here, likely sentences come more often than they do in
the corpus.) "Random codes" are drawn one by one by their frequencies, as many as it wrote. Words
are those that Moonshine hears; the way to the grammar are the edits from there to the nearest that the grammar could
say, from anywhere in a sentence to anywhere in a later one, as a share of the letters heard. Similarity is that of
"Content and voice". New runs of three words are those that no earlier sample of the same row has.

The first of each that were heard, seed {min(results)}, not chosen:

{_examples(folders, min(results))}

ABX at letters in context, errors in %: A and X have the same three letters in different sentences, B another one in the
middle.

{letters_table(results)}"""


def _examples(folders: Folders, seed: int) -> str:
    heard = json.loads(folders.result("continuations", seed).read_text(encoding="utf-8"))["notes"]["heard"]
    places = {**{split: WHERE[split] for split in SPLITS}, NOTHING: "from nothing"}
    rows = [
        [where, system, text or "(nothing)"]
        for place, where in places.items()
        for system in (OURS, RANDOM)
        for text in heard[f"{place}/{system}"][:NUM_EXAMPLES]
    ]
    return table(["behind", "codes", "heard"], rows)


def language_costs(results: Results, budget: Budget, folders: Folders) -> str:
    """Return how much was trained and measured for this part."""
    plan, names = budget.language, ("semantic", "likelihoods", "continuations", "phones")
    rows = [[str(seed), *(_cpu_seconds(folders, f"{name}-{seed}") for name in names)] for seed in results]
    notes = [json.loads(folders.result("phones", seed).read_text(encoding="utf-8"))["notes"] for seed in results]
    num_triples = mean(sum(one["num_triples"].values()) for one in notes)
    return f"""- Semantic stage of each seed: {plan.steps} steps of {plan.batch_size} rows, width {budget.width},
  {budget.num_layers} layers, Muon at {plan.learning_rate:g}; the English sentences of the training split, those of a
  speaker end to end for {plan.joined_seconds:g} s and the sentence that reaches it, in {plan.num_joinings} orders.
  Repeats are removed. Temperature 0.6.
- Items: {plan.num_pairs} pairs of each kind; {plan.num_continuations} prompts of each split and
  {plan.num_unconditional} times nothing, {plan.continued_seconds:g} s at most; letters in {plan.num_phone_sentences}
  sentences by all speakers, {num_triples:,.0f} triples.

{table(["seed", "semantic stage, CPU s", "pairs", "continuations", "letters"], rows)}"""


def _cpu_seconds(folders: Folders, name: str) -> str:
    path = folders.root / "steps" / f"{name}.json"
    return f"{json.loads(path.read_text(encoding='utf-8'))['cpu_seconds']:,.0f}" if path.exists() else "-"


def language_limits(budget: Budget) -> str:
    """Return what this part does not show."""
    texts = every_text(LANGUAGE)
    num_words = len({word for text in texts for word in text.split()})
    num_heard = budget.quickstart_config().corpus["num_sentences"]
    return f"""The language is a grammar of {len(texts):,} English sentences of {num_words} words, of which the semantic
stage has heard {num_heard:,}. (A uniform guess would be {_uniform(budget):.1f} nats a code.) Nonwords are words that
the grammar does not have; some are English. Shuffled words differ in length and melody, too: "frequencies" shows how
much of a kind needs no order. The stage has heard all the voices of the pairs. A continuation is cut out of speech at
both ends; how natural it sounds was not measured, and Moonshine's own language model makes words of anything, as the
random codes show.

ABX at letters has letters for phones, and borders by the CTC encoder that is under the semantic codes, to within a
frame of 80 ms; all tokens are cut at the same borders. The bootstrap is over kinds of triples (two letters and their
neighbours), which share sentences. A synthesiser says the same letters in the same voice almost
alike: within a speaker the acoustic codes have it easier than those of people's speech."""


def _uniform(budget: Budget) -> float:
    return math.log(budget.quickstart_config().semantic.codebook_size)
