"""What a second of speech costs: AudioLM's coarse and fine stages against SoundStorm, in turns, in one process.

    measure_speed(seed=0, budget=budget, folders=folders)       # results/speed-0.json

    series "<system>/seconds"       (CPU seconds, seconds of audio) of each round

One row, a voice prompt of three seconds, one thread; acoustic codes only, as the codec is the same for all.
(SoundStorm, arXiv:2305.09636, section 4: two orders of magnitude on a TPU, where AudioLM's steps wait for one
another.)
"""

from collections.abc import Callable

from benchmarks.evidence.acoustic.iterations import AT_ONCE, as_single_pass
from benchmarks.evidence.acoustic.long_speech import long_items
from benchmarks.evidence.acoustic.plan import SPLITS, Budget, Folders
from benchmarks.evidence.acoustic.world import Series, World, save_series
from benchmarks.evidence.parts import use_one_thread
from benchmarks.measure import clock_for, interleave
from speechllm.generation.acoustic import AcousticDecoding, acoustic_codes
from speechllm.models.acoustic import AcousticModel


def measure_speed(seed: int, budget: Budget, folders: Folders) -> None:
    """Time the models on the start of one long item."""
    use_one_thread()
    world = World.load(seed, budget, folders)
    item = long_items(world, SPLITS[0])[0]
    codes = item.codes[: round(budget.speed_seconds * world.tokenizer.frame_rate)]
    models = {**world.models, f"SoundStorm, {AT_ONCE}": as_single_pass(world.soundstorm)}

    def job(model: AcousticModel) -> Callable[[], object]:
        prompt = world.prompt(model, item.voice)
        return lambda: acoustic_codes(model, [codes], [prompt], AcousticDecoding(), seed=seed)

    jobs = {name: job(model) for name, model in models.items()}
    times = interleave(jobs, rounds=budget.speed_rounds, warmup=1, clock=clock_for(1))
    seconds = len(codes) / world.tokenizer.frame_rate
    series: dict[str, Series] = {f"{name}/seconds": [(took, seconds) for took in times[name]] for name in jobs}
    save_series(folders.result("speed", seed), series)
