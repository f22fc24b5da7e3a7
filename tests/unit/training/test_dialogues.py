import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechllm.errors import ConfigError, DataError
from speechllm.generation.acoustic import AcousticDecoding
from speechllm.generation.soundstorm_stage import dialogue_codes, soundstorm_codes
from speechllm.generation.voice import VoicePrompt
from speechllm.models.soundstorm import SoundStorm, SoundStormConfig, take_weights
from speechllm.nn.conformer import ConformerConfig
from speechllm.training.dialogues import DialogueConfig, plan_rows
from speechllm.training.loop import LoopConfig, train_stage
from speechllm.training.optim import OptimizerConfig
from speechllm.training.soundstorm import AcousticUtterance, SoundStormStage, SoundStormTrainConfig

K, N, SEMANTIC = 2, 16, 5
ALL = DialogueConfig(share=1.0, turns=(2, 3))


@settings(max_examples=60, deadline=None)
@given(
    speakers=st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=30),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    num_speakers=st.integers(2, 3),
    seed=st.integers(0, 1_000),
)
def test_every_utterance_is_said_once_and_marks_tell_the_voices_of_a_row_apart(speakers, share, num_speakers, seed):
    config = DialogueConfig(share=share, turns=(2, 4))
    rows = plan_rows(speakers, config, num_speakers=num_speakers, rng=np.random.default_rng(seed))
    assert sorted(turn.utterance for row in rows for turn in row) == list(range(len(speakers)))
    for row in rows:
        assert 1 <= len(row) <= 4
        voices = {(turn.mark, speakers[turn.utterance]) for turn in row}
        assert len(voices) == len({mark for mark, _ in voices}) == len({voice for _, voice in voices}) <= num_speakers
        assert {mark for mark, _ in voices} <= set(range(num_speakers))
        if len(voices) == 1:
            assert row[0].mark == 0
        if len(row) > 1:
            assert all(speakers[turn.utterance] for turn in row)
    again = plan_rows(speakers, config, num_speakers=num_speakers, rng=np.random.default_rng(seed))
    assert rows == again


def test_dialogues_alternate_and_either_mark_begins():
    rows = plan_rows(["a", "b"] * 200, ALL, num_speakers=2, rng=np.random.default_rng(0))
    dialogues = [row for row in rows if len({turn.mark for turn in row}) == 2]
    assert len(dialogues) > 50
    assert all(a.mark != b.mark for row in dialogues for a, b in pairwise(row))
    assert {row[0].mark for row in dialogues} == {0, 1}
    # The second voice is drawn from all: some speak alone.
    assert any(len(row) > 1 and len({turn.mark for turn in row}) == 1 for row in rows)


def toy_voices(count=64):
    """Return utterances of four speakers whose acoustic codes follow from semantic code and speaker."""
    rng = np.random.default_rng(0)
    return [utterance(rng.integers(SEMANTIC, size=rng.integers(4, 8)), i % 4) for i in range(count)]


def utterance(semantic, speaker):
    level = (np.repeat(semantic, 2) * 3 + speaker * 4) % N
    return AcousticUtterance(semantic, np.stack([level, N - 1 - level]), f"s{speaker}")


def make_model(num_speakers=2):
    torch.manual_seed(0)
    return SoundStorm(
        SoundStormConfig(
            num_conditions=SEMANTIC, num_codebooks=K, codebook_size=N, tied=False, num_speakers=num_speakers,
            trunk=ConformerConfig(width=32, num_layers=1, num_heads=2),
        )
    )  # fmt: skip


def make_stage(model, utterances=None, **options):
    config = SoundStormTrainConfig(max_frames=300, prompt_seconds=(0.3, 0.6), dialogues=ALL, **options)
    return SoundStormStage(model, utterances or toy_voices(), config, frame_rate=25.0, seed=0)


def test_a_batch_of_dialogues_shows_every_voice_first_and_keeps_its_limit():
    stage = make_stage(make_model(), prompt_share=1.0)
    marked = 0
    for step in range(20):
        batch = stage.batch(step)
        assert batch.condition.numel() <= 300
        speakers = batch.condition // SEMANTIC
        # What can be heard of the voice says the same as the marks: each mark of a row is one voice.
        heard = (batch.codes[:, 0] - 3 * (batch.condition % SEMANTIC)) % N
        for b, length in enumerate(batch.lengths.tolist()):
            pairs = set(zip(speakers[b, :length].tolist(), heard[b, :length].tolist(), strict=True))
            assert len(pairs) == len({mark for mark, _ in pairs}) == len({voice for _, voice in pairs})
            known = ~batch.masked.loss_mask[b] & (batch.masked.codes[b] != N).all(0)
            prompt = int(known[:length].long().cumprod(0).sum())
            assert set(speakers[b, :prompt].tolist()) == {mark for mark, _ in pairs}
            marked += len(pairs) > 1
    assert marked > 10


def test_after_training_marks_carry_the_voices_and_swapped_marks_swap_them(tmp_path):
    """The voice of a turn is that of its own prompt, whichever prompt comes first."""
    stage = make_stage(make_model(), prompt_share=1.0, first_level_share=0.7)
    loop = LoopConfig(
        steps=240, optimizer=OptimizerConfig(kind="muon", learning_rate=2e-2), warmup_steps=5, progress=False
    )
    train_stage(stage, loop, tmp_path)
    assert isinstance(stage.model, SoundStorm)
    model = stage.model.eval()
    rng, right, swapped = np.random.default_rng(1), [], []
    for pair in ((0, 1), (2, 3), (3, 0), (1, 2)):
        said = [rng.integers(SEMANTIC, size=6) for _ in range(4)]
        voices = [utterance(rng.integers(SEMANTIC, size=7), speaker) for speaker in pair]
        prompts = [VoicePrompt(voice.semantic, voice.acoustic) for voice in voices]
        for first, found in ((0, right), (1, swapped)):
            turns = [((number + first) % 2, codes) for number, codes in enumerate(said)]
            (made,) = dialogue_codes(
                model, [turns], [prompts], AcousticDecoding(first_iterations=4, temperature=0.0), seed=0
            )
            wanted = [utterance(codes, pair[place]).acoustic[0] for place, codes in turns]
            found += [np.mean(codes[0] == want) for codes, want in zip(made, wanted, strict=True)]
    # Four voices are to be told apart: a model that did not know whose turn it is would be right half of the time.
    assert np.mean(right) > 0.8
    assert np.mean(swapped) > 0.8


def test_training_goes_on_from_a_monologue_and_says_the_same_before_the_first_step(tmp_path):
    alone = make_model(num_speakers=1).eval()
    alone.save_pretrained(tmp_path)
    marked = make_model(num_speakers=2).eval()
    torch.nn.init.zeros_(marked.condition.weight)
    take_weights(marked, tmp_path)
    codes = np.random.default_rng(0).integers(SEMANTIC, size=9)
    decoding = AcousticDecoding(first_iterations=2)
    one, other = (soundstorm_codes(model, [codes], [None], decoding, seed=0)[0] for model in (alone, marked))
    assert np.array_equal(one, other)
    marked.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="num_speakers \\(2 there\\)"):
        take_weights(alone, tmp_path)
    larger = SoundStorm(dataclasses.replace(alone.config, num_conditions=SEMANTIC + 1))
    with pytest.raises(ConfigError, match="num_conditions"):
        take_weights(larger, tmp_path)


def test_marks_without_dialogues_and_dialogues_without_marks_are_refused():
    with pytest.raises(ConfigError, match="set both or neither"):
        make_stage(make_model(num_speakers=1))
    with pytest.raises(ConfigError, match="set both or neither"):
        SoundStormStage(make_model(), toy_voices(), SoundStormTrainConfig(), frame_rate=25.0, seed=0)
    with pytest.raises(DataError, match="fewer than two speakers"):
        make_stage(make_model(), [utterance(np.arange(4), 0)] * 3)
    with pytest.raises(ConfigError, match="share"):
        DialogueConfig(share=1.5)
    with pytest.raises(ConfigError, match="turns"):
        DialogueConfig(turns=(3, 2))
