"""How many passes SoundStorm's first level needs: words, sound and time by number of iterations.

    measure_iterations(seed=0, budget=budget, folders=folders)      # results/iterations-0.json

    series "<iterations>/cer", "<iterations>/own voice", "<iterations>/log-mel distance", "<iterations>/seconds"

With a prompt of the speaker, against the codec copy of what the speaker said. `at once` is no number of passes but a
single one for all levels, which a model trained for minutes may also be asked for. (SoundStorm, arXiv:2305.09636,
section 4, figure 4.)
"""

import time
from dataclasses import replace

from benchmarks.evidence.acoustic.plan import SPLITS, Budget, Folders
from benchmarks.evidence.acoustic.world import Series, World, save_series
from benchmarks.evidence.parts import use_one_thread
from speechllm.audio import Audio
from speechllm.evaluation.resynthesis import mel_distance
from speechllm.generation.acoustic import AcousticDecoding, acoustic_codes
from speechllm.models.soundstorm import SoundStorm

AT_ONCE = "at once"


def measure_iterations(seed: int, budget: Budget, folders: Folders) -> None:
    """Speak the same items with every number of iterations."""
    use_one_thread()
    world = World.load(seed, budget, folders)
    items = world.items(SPLITS[0], budget.num_iteration_items)
    codes = world.tokenizer.encode([item.audio for item in items])
    voices = [world.prompt(world.soundstorm, item.voice) for item in items]
    copies = [world.copy(item.audio) for item in items]
    num_seconds = sum(item.audio.duration_seconds for item in items)
    series: dict[str, Series] = {}
    for name in (AT_ONCE, *map(str, budget.iterations)):
        model = as_single_pass(world.soundstorm) if name == AT_ONCE else world.soundstorm
        decoding = AcousticDecoding(first_iterations=1 if name == AT_ONCE else int(name))
        started = time.process_time()
        drawn = acoustic_codes(model, codes, voices, decoding, seed=seed)
        series[f"{name}/seconds"] = [(time.process_time() - started, num_seconds)]
        audios = world.decode(drawn)
        series[f"{name}/cer"] = world.ears.errors([item.text for item in items], audios)
        series[f"{name}/own voice"] = world.ears.similarities(audios, [item.voice for item in items])
        series[f"{name}/log-mel distance"] = distances(copies, audios)
    save_series(folders.result("iterations", seed), series)


def distances(originals: list[Audio], copies: list[Audio]) -> Series:
    """Return (dB, 1) of each pair."""
    values = [mel_distance([a], [b]).value for a, b in zip(originals, copies, strict=True)]
    return [None if value is None else (value, 1.0) for value in values]


def as_single_pass(model: SoundStorm) -> SoundStorm:
    """Return a copy of the model, sharing its weights, that speaks in one pass."""
    twin = SoundStorm(replace(model.config, at_once=True)).eval()
    twin.load_state_dict(model.state_dict())
    return twin
