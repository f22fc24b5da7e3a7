import hashlib
from collections import Counter

import numpy as np
import pytest

from speechllm.config import build_config
from speechllm.data import row_order
from speechllm.data.collate import task_name
from speechllm.data.mixture import BLOCK, Mixture, MixtureComponent, MixtureConfig, load_mixture
from speechllm.data.row_store import RowStore
from speechllm.data.tokenize import TokenRow, tokenize_corpus
from speechllm.errors import ConfigError, DataError, TaskError
from speechllm.tasks import TaskTag
from tests.support.tiny import NUM_CODES, tiny_processor
from tests.support.token_rows import varied_rows


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(semantic=False)


def rows(num=7, language="en", target="fr"):
    generator = np.random.default_rng(0)
    return [
        TokenRow(
            id=f"r{i}",
            split="train",
            language=language,
            text=f"sentence {i}",
            codes=generator.integers(NUM_CODES, size=6),
            translation_language=target,
            translation_text=f"phrase {i}" if target else "",
            translation_codes=generator.integers(NUM_CODES, size=5) if target else None,
        )
        for i in range(num)
    ]


def mixture(processor, components, data=None, **options):
    config = MixtureConfig(components=[MixtureComponent(folder="f", **c) for c in components], **options)
    return Mixture(config, processor, [RowStore.of(part) for part in data or [rows()] * len(components)])


def same(a, b):
    return a.tag == b.tag and np.array_equal(a.input_ids, b.input_ids) and np.array_equal(a.loss_mask, b.loss_mask)


def test_example_i_is_a_function_of_seed_and_i(processor):
    tasks = [{"tasks": "ASR"}, {"tasks": "MT", "weight": 2.0}]
    one, two = (mixture(processor, tasks, code_noise=0.2) for _ in range(2))
    forward = [one.example(i) for i in range(50)]
    backward = [two.example(i) for i in reversed(range(50))][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
    other = mixture(processor, tasks, seed=1)
    assert not all(same(a, other.example(i)) for i, a in enumerate(forward))


VARIED = [
    {"tasks": "ASR", "weight": 2.5},
    {"tasks": "MT", "directions": ["fr-en"]},
    {"tasks": "ASR AST S2ST", "weight": 3.0},
    {"tasks": "TTS", "directions": ["fr"]},
    {"tasks": "text", "directions": ["en"], "weight": 0.5},
    {"tasks": "text", "text_tokens": 4},
]


def varied(processor, **options):
    data = [varied_rows(100)] * len(VARIED)
    return mixture(processor, VARIED, data, sampling="temperature", code_noise=0.2, seed=3, **options)


def test_examples_are_those_of_release_0_1(processor):
    """Made when rows, candidates and orders were lists: 3,000 examples, all components beyond their first epoch."""
    found, m = hashlib.sha256(), varied(processor)
    for i in range(3000):
        example = m.example(i)
        for part in (example.tag.encode(), example.input_ids.tobytes(), example.loss_mask.tobytes()):
            found.update(part)
    assert m.sizes == [125, 62, 82, 51, 81, 158]
    assert found.hexdigest() == "211cb582fadc2095b3f56b474901cc475f893502bad9340b590d62e69a2f6846"
    assert list(m.spoken_sides(20))[:5] == [(0.25, 1), (0.0, 1), (0.5, 2), (0.0, 2), (0.75, 3)]


def test_chosen_is_every_row_and_direction_that_has_the_fields(processor):
    rows, m = varied_rows(100), varied(processor)
    for component, chosen in zip(m.config.components[:4], m._chosen[:4], strict=True):
        tag = TaskTag.of(component.tasks, "en", "fr")
        expected = [
            (i, reverse)
            for i, row in enumerate(rows)
            for reverse in (False, True)
            if {tag.source, *tag.targets} <= set(row.fields(reverse))
            and (
                component.directions is None
                or "-".join(map(str, row.languages(reverse))).startswith(component.directions[0])
            )
        ]
        assert [chosen[i][1:] for i in range(len(chosen))] == expected


def test_an_order_too_long_to_list_changes_nothing_but_the_order(processor, monkeypatch):
    m = mixture(processor, [{"tasks": "ASR"}])
    monkeypatch.setattr(row_order, "LISTED", 10)
    for i in range(0, 42, 14):
        assert len({(s := m.segments(j)).tag + s.target[0].text for j in range(i, i + 14)}) == 14


def test_frequencies_match_weights_exactly_per_block(processor):
    m = mixture(
        processor, [{"tasks": "ASR", "weight": 5.0}, {"tasks": "TTS", "weight": 2.0}, {"tasks": "MT", "weight": 1.0}]
    )
    for block in (0, 3):
        counts = Counter(task_name(m.segments(i).tag) for i in range(block * BLOCK, (block + 1) * BLOCK))
        assert counts == {"ASR": BLOCK * 5 // 8, "TTS": BLOCK * 2 // 8, "MT": BLOCK // 8}


def test_a_rare_component_still_comes(processor):
    m = mixture(processor, [{"tasks": "ASR", "weight": 1e5}, {"tasks": "MT"}])
    assert Counter(task_name(m.segments(i).tag) for i in range(BLOCK))["MT"] == 1


def test_every_example_comes_once_per_epoch(processor):
    m = mixture(processor, [{"tasks": "ASR"}])
    assert m.sizes == [14]
    epochs = [[(s := m.segments(e * 14 + i)).tag + s.target[0].text for i in range(14)] for e in range(3)]
    assert all(len(set(epoch)) == 14 for epoch in epochs)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    ("sampling", "expected"), [("fixed", 0.5), ("proportional", 0.8), ("temperature", 2 / 3)], ids=str
)
def test_shares(processor, sampling, expected):
    data = [rows(40, target=None), rows(10, target=None)]
    m = mixture(processor, [{"tasks": "ASR"}, {"tasks": "TTS"}], data, sampling=sampling, temperature=2.0)
    assert m.shares[0] == pytest.approx(expected)


def test_directions_limit_what_is_trained(processor):
    m = mixture(processor, [{"tasks": "ASR AST", "directions": ["fr-en"]}, {"tasks": "ASR", "directions": ["fr"]}])
    tags = {m.segments(i).tag for i in range(40)}
    assert tags == {"[ASR AST French English]", "[ASR French]"}


def test_noise_touches_input_codes_only(processor):
    tasks = [{"tasks": "ASR AST S2ST"}]
    clean, noisy = mixture(processor, tasks), mixture(processor, tasks, code_noise=0.3)
    changed = total = 0
    for i in range(200):
        a, b = clean.segments(i), noisy.segments(i)
        assert a.target == b.target
        assert a.prompt[0] == b.prompt[0]
        changed += (a.prompt[1].codes != b.prompt[1].codes).sum()
        total += len(a.prompt[1].codes)
    assert changed / total == pytest.approx(0.3 * (1 - 1 / NUM_CODES), abs=0.05)


def test_errors(processor):
    with pytest.raises(ConfigError, match=r"weights sum to 0.0: \[ASR\] on f/train; \[MT\] on f/train"):
        mixture(processor, [{"tasks": "ASR", "weight": 0.0}, {"tasks": "MT", "weight": 0.0}])
    with pytest.raises(DataError, match=r"component \[AST\] on f/train has no example among 7 rows"):
        mixture(processor, [{"tasks": "AST"}], [rows(target=None)])
    with pytest.raises(ConfigError, match="direction 'fr', expected a pair"):
        mixture(processor, [{"tasks": "AST", "directions": ["fr"]}])
    with pytest.raises(TaskError, match="unknown task 'ASSR'; did you mean 'ASR'"):
        mixture(processor, [{"tasks": "ASSR"}])
    with pytest.raises(ConfigError, match="no components"):
        MixtureConfig(components=[])
    with pytest.raises(ConfigError, match="weight = -1"):
        MixtureConfig(components=[MixtureComponent(tasks="ASR", folder="f", weight=-1.0)])


def test_tokens_of_another_tokenizer_are_refused(tmp_path):
    from speechllm.audio import save_audio
    from speechllm.data.prepare import prepare_corpus
    from speechllm.data.records import Record
    from speechllm.tokenizers.fake import FakeSemanticTokenizer
    from tests.support.tiny import tiny_speech

    wav = tmp_path / "a.wav"
    save_audio(tiny_speech(seconds=0.5), wav)
    prepare_corpus([Record(id="a", split="dev.clean", language="en", text="one", audio=wav)], tmp_path / "corpus")
    tokenize_corpus(tmp_path / "corpus", FakeSemanticTokenizer(16), tmp_path / "tokens")
    data = {"components": [{"tasks": "ASR", "folder": str(tmp_path / "tokens"), "split": "dev.clean"}]}
    config = build_config(MixtureConfig, data)
    assert len(load_mixture(config, tiny_processor(semantic=False)).example(0)) > 3
    with pytest.raises(DataError):
        load_mixture(config, tiny_processor(semantic=True))
