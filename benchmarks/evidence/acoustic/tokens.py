"""What each kind of token is good for: ABX on minimal pairs, and how close to the original its sound comes.

    measure_tokens(seed=0, budget=budget, folders=folders)      # results/tokens-0.json

    series "abx within/<tokens>", "abx across/<tokens>"         errors of triples, in percent; A and B in one voice
           "abx against the voice/<tokens>"                     A in another voice than X, B in the voice of X
           "log-mel distance/<tokens>", "cer/<tokens>"          of sentences made from the tokens again

    tokens           as vectors, for ABX                                        as sound
    semantic         centroids                                                  SoundStorm, no prompt
    acoustic, coarse sum of the first levels' vectors, as AudioLM's coarse stage  codec
    acoustic         sum of all levels' vectors                                 codec

Vectors are centred on the mean of their codebook, so that angles are between what differs. (AudioLM, arXiv:2209.03143,
table I; ABX within and across as in Libri-Light, arXiv:1912.07875. There semantic tokens are made sound by a
SoundStream decoder.) Against the voice is ours: it asks which of the two, words or voice, makes things alike.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks.evidence.acoustic.iterations import as_single_pass, distances
from benchmarks.evidence.acoustic.minimal_pairs import SpokenPair, minimal_pairs, speak_pairs
from benchmarks.evidence.acoustic.plan import SPLITS, Budget, Folders
from benchmarks.evidence.acoustic.world import Series, World, save_series, training_texts
from benchmarks.evidence.parts import use_one_thread
from speechllm.audio import Audio
from speechllm.metrics.abx import Triple, abx_errors

SEMANTIC, COARSE, ACOUSTIC = "semantic", "acoustic, coarse levels", "acoustic"
KINDS = (SEMANTIC, COARSE, ACOUSTIC)
WITHIN, ACROSS, AGAINST = "within", "across", "against the voice"
Frames = Callable[[Audio], np.ndarray]


def measure_tokens(seed: int, budget: Budget, folders: Folders) -> None:
    """Compare the tokens on pairs that are drawn anew for every seed."""
    use_one_thread()
    world = World.load(seed, budget, folders)
    series = {**reconstruction(world)}
    pairs = minimal_pairs(budget.num_pairs, avoid=training_texts(folders), seed=seed)
    num_speakers = int(budget.quickstart_config().corpus.get("num_speakers", 12))
    spoken = list(speak_pairs(pairs, num_speakers=num_speakers, seed=seed))
    for kind, frames in vectors(world).items():
        for name, found in triples(spoken, frames).items():
            series[f"abx {name}/{kind}"] = [(error, 1.0) for error in abx_errors(found)]
    save_series(folders.result("tokens", seed), series, num_pairs=len(pairs))


def vectors(world: World) -> dict[str, Frames]:
    """Return how each kind of token makes frames [T, D] of audio."""
    centroids = world.tokenizer.centroids.numpy()
    codebooks = world.codec.codebook_vectors()
    centroids, offset = centroids - centroids.mean(0), codebooks[0].mean(0)

    def acoustic(num_levels: int) -> Frames:
        def frames(audio: Audio) -> np.ndarray:
            samples = torch.from_numpy(audio.resampled(world.codec.sample_rate).samples)
            codes = world.codec.encode(samples[None])[0, :num_levels]
            summed = torch.stack([codebooks[k][level] for k, level in enumerate(codes)]).sum(0)
            return (summed - offset).numpy()

        return frames

    return {
        SEMANTIC: lambda audio: centroids[world.tokenizer.encode([audio])[0]],
        COARSE: acoustic(world.budget.num_coarse),
        ACOUSTIC: acoustic(len(codebooks)),
    }


def triples(pairs: Sequence[SpokenPair], frames: Frames) -> dict[str, list[Triple]]:
    """Return two triples of each pair for each condition: the sentences take turns as the one that is right."""
    found: dict[str, list[Triple]] = {WITHIN: [], ACROSS: [], AGAINST: []}
    for pair in pairs:
        first, again, other = ([frames(audio) for audio in take] for take in (pair.first, pair.again, pair.other))
        for right, wrong in ((0, 1), (1, 0)):
            found[WITHIN].append(Triple(a=first[right], b=first[wrong], x=again[right]))
            found[ACROSS].append(Triple(a=first[right], b=first[wrong], x=other[right]))
            found[AGAINST].append(Triple(a=first[right], b=other[wrong], x=other[right]))
    return found


def reconstruction(world: World) -> dict[str, Series]:
    """Return how far from the original, and how well understood, what is made of the tokens is."""
    items = world.items(SPLITS[0], world.budget.num_iteration_items)
    audios = [item.audio for item in items]
    codes = world.tokenizer.encode(audios)
    made = {
        # One pass predicts the expected sound: the closest that these codes allow, as a trained decoder would.
        SEMANTIC: world.speak(as_single_pass(world.soundstorm), codes, [None] * len(codes)),
        COARSE: [world.copy(audio, world.budget.num_coarse) for audio in audios],
        ACOUSTIC: [world.copy(audio) for audio in audios],
    }
    series: dict[str, Series] = {}
    for kind, copies in made.items():
        series[f"log-mel distance/{kind}"] = distances(audios, copies)
        series[f"cer/{kind}"] = world.ears.errors([item.text for item in items], copies)
    return series
