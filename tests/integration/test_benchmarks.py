"""Every benchmark runs at tiny sizes, and refuses to time contestants that do not do the same work."""

import functools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    acoustic,
    acoustic_device,
    acoustic_jobs,
    acoustic_peers,
    decoding,
    machine,
    measure,
    serving,
    tokenizers,
    training,
    training_gpu,
)
from benchmarks.evidence import audiopalm, parts, plot, summary
from benchmarks.evidence.acoustic import __main__ as acoustic_evidence
from benchmarks.evidence.acoustic import minimal_pairs, world
from benchmarks.evidence.acoustic import parts as acoustic_parts
from benchmarks.evidence.acoustic import plan as acoustic_plan
from benchmarks.evidence.acoustic import summary as acoustic_summary
from benchmarks.evidence.plan import TINY, Folders, RunSpec, plan
from recipes.quickstart.config import CONFIG, QuickstartConfig
from speechllm.config import load_config


def test_spread_is_ordered_and_ratios_are_formed_by_round():
    spread = measure.Spread.of([3.0, 1.0, 2.0])
    assert (spread.low, spread.median, spread.high, spread.num_rounds) == (1.0, 2.0, 3.0, 3)
    # the machine was ten times slower in the second round: the ratio does not notice
    assert measure.ratio([2.0, 20.0], [1.0, 10.0]) == measure.Spread(2.0, 2.0, 2.0, 2)


def test_interleave_takes_turns_and_flips_the_order():
    calls = []
    seconds = measure.interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, warmup=1)
    assert "".join(calls) == "ab" + "ab" + "ba"
    assert [len(values) for values in seconds.values()] == [2, 2]


def test_table_and_file(tmp_path):
    text = measure.table(["a", "b"], [["1", "2"]])
    assert text == "| a | b |\n|---|---|\n| 1 | 2 |"
    path = measure.write_text(tmp_path / "new" / "result.md", text)
    assert path.read_text() == text + "\n"
    assert list(path.parent.iterdir()) == [path]


def test_machine_is_described_with_its_ceilings():
    found = machine.measure_machine(num_threads=1, quick=True)
    assert all(spread.low > 0 for spread in (*found.matmul.values(), found.bandwidth))
    assert "bfloat16" in found.describe()


@pytest.fixture(scope="module")
def tiny_lm():
    return decoding.build(decoding.TINY[0])


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_decoding_contestants_write_the_same_ids(tiny_lm, modality):
    model, processor = tiny_lm
    span = decoding.make_span(processor, modality, num_ids=5, batch_size=3)
    contestants = decoding.candidates(model, processor, span)
    assert contestants["LMDecoder"]().shape == contestants["generate"]().shape == (3, 5)


def test_decoding_refuses_contestants_that_differ(tiny_lm, monkeypatch):
    model, processor = tiny_lm
    span = decoding.make_span(processor, "audio", num_ids=3, batch_size=1)
    monkeypatch.setattr(decoding, "run_ours", lambda decoder, span: np.zeros((1, 3), np.int64))
    with pytest.raises(AssertionError, match="differ first in sequence 0, id 0"):
        decoding.candidates(model, processor, span)


def test_packed_and_padded_training_are_compared(tiny_lm):
    found = machine.measure_machine(num_threads=1, quick=True)
    rows = training.compare(training.TINY[0], training.CORPORA[0], found, rounds=1, num_steps=2, quick=True)
    filled = {row[2]: float(row[4].split()[0]) for row in rows}
    assert filled["packed"] > filled["padded, by length"] > filled["padded"] > 0


def test_training_refuses_layouts_with_another_loss(tiny_lm, monkeypatch):
    model, processor = tiny_lm
    examples = training.make_examples(processor, training.CORPORA[0], 4)
    training.check_same_loss(model, processor, examples)
    collate = training.collate_rows

    def leaking(rows, pad_id):
        batch = collate(rows, pad_id)
        length = batch["position_ids"].shape[1]
        return {**batch, "position_ids": batch["position_ids"].new_tensor([range(length)])}

    monkeypatch.setattr(training, "collate_rows", leaking)
    with pytest.raises(AssertionError, match="the layouts differ"):
        training.check_same_loss(model, processor, examples)


def test_training_on_a_gpu_runs_on_a_cpu_at_tiny_sizes(tmp_path):
    out = tmp_path / "gpu.md"
    training_gpu.main(out=out, device="cpu", num_steps=5, attention="sdpa", liger=False, quick=True)
    text = out.read_text()
    lines = [line for line in text.splitlines() if line.startswith("| tiny")]
    assert len(lines) == 4
    assert all("no peak known" in line and "not on a CPU" in line for line in lines), "no made-up figures"
    assert float(lines[0].split("|")[5].split()[0]) > 80
    assert "hours of audio per hour of CPU" in text


def test_mfu_is_work_over_time_and_peak():
    size = training_gpu.TINY[0]
    options = replace(training_gpu.FULL, max_steps=5, max_tokens=256, rows_per_batch=2, cpu=True, peak_tflops=1e-3)
    found = training_gpu.train(size, options, training_gpu.OptimizerConfig(), "sdpa", training_gpu.CORPORA[0])
    model, _ = training_gpu.build(size, "sdpa")
    work = training_gpu.model_work(model)
    # Between the work of the layers alone and that with the output matrix at every token and whole rows of pairs.
    low = work.per_token
    high = work.flops(tokens=1.0, targets=1.0, pairs=256.0)
    per_token = found.mfu.median / 100 * 1e9 / found.tokens_per_second.median
    assert low < per_token < high
    assert found.filled > 90


def test_what_is_called_quickstart_has_the_sizes_of_the_recipe():
    recipe = load_config(QuickstartConfig, CONFIG)
    for sizes in (decoding.SIZES, training.SIZES):
        (found,) = [size for size in sizes if size.name == "quickstart"]
        assert (found.num_codes, found.num_text_ids) == (recipe.semantic.codebook_size, recipe.text_lm.vocab_size)
        assert found.hidden_size == recipe.text_lm.model.hidden_size
    assert tokenizers.ctc_codes().codebook_size == recipe.semantic.codebook_size
    assert tokenizers._codec().config == recipe.codec


@pytest.mark.parametrize("name", [name for name in tokenizers.PARTS if "Whisper" not in name])
def test_each_part_has_a_real_time_factor(name, monkeypatch):
    monkeypatch.setattr(tokenizers, "speech", lambda count: [tokenizers.Audio(np.zeros(8000, np.float32), 16_000)])
    found = tokenizers.measure(name, 1, 1, 1)
    assert found.real_time_factor.low > 0
    assert found.peak_memory_mib >= found.memory_before_mib > 0


def test_acoustic_jobs_are_written_one_by_one(tmp_path, monkeypatch):
    out, texts = tmp_path / "acoustic.md", []
    monkeypatch.setattr(acoustic, "write_text", lambda path, text: texts.append(text) or measure.write_text(path, text))
    monkeypatch.setattr(acoustic_peers.Peer, "version", None)
    acoustic.main(out=out, quick=True)
    titles = [job.title for job in acoustic.JOBS]
    for done, text in enumerate(texts, start=1):
        assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == titles[:done]
        assert ("Not finished" in text) == (done < len(titles))
    assert len(texts) == len(titles)
    assert out.read_text().count("is not installed: it was not measured") == len(titles)


def test_the_papers_sizes_are_timed_on_a_device(tmp_path, monkeypatch):
    acoustic_device.main(device="cpu", out=tmp_path / "device.md", quick=True)
    text = (tmp_path / "device.md").read_text()
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert titles == [job.title for job in acoustic_device.JOBS]
    assert text.count("| speechllm, bf16, 8 rows |") == 3
    assert "--device cpu" in text
    sizes = acoustic_jobs.PAPER
    assert (sizes.width, sizes.num_layers, sizes.num_heads, sum(sizes.iterations)) == (1024, 12, 16, 27)
    assert sizes.spoken_frames / sizes.frame_rate == 30
    monkeypatch.setattr(acoustic_device.torch.cuda, "is_available", lambda: False)
    with pytest.raises(acoustic_device.typer.BadParameter, match="there is no cuda here"):
        acoustic_device.main(device="cuda", out=tmp_path / "cuda.md", quick=True)
    assert not (tmp_path / "cuda.md").exists()


@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_counted_operations_are_those_that_torch_counts(stage):
    from torch.utils.flop_counter import FlopCounterMode

    sizes = replace(acoustic.QUICK, width=64, num_codes=64)
    for entrant in (acoustic_jobs.soundstorm_generation(sizes), acoustic_jobs.stage_generation(sizes, stage)):
        with FlopCounterMode(display=False) as counter:
            entrant.run()
        assert entrant.operations == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_plan_changes_one_thing_at_a_time():
    specs = plan(("log-mel", "ctc", "whisper"), seeds=(0, 1))
    assert len({spec.key for spec in specs}) == len(specs) == 10
    base = specs[0]
    for spec in specs[:5]:
        assert sum(getattr(spec, name) != getattr(base, name) for name in ("tokenizer", "start", "mix")) <= 1


@pytest.fixture(scope="module")
def evidence(tmp_path_factory) -> Folders:
    folders = Folders(tmp_path_factory.mktemp("evidence"))
    budget = replace(TINY, num_sentences=12, num_test=2)
    parts.build_corpus(budget, folders)
    for name in ("ctc", "log-mel"):
        parts.build_tokens(name, budget, folders)
    parts.build_text_lm(0, budget, folders)
    for spec in plan(("log-mel", "ctc"), (0,)):
        audiopalm.run_once(spec, budget, folders)
    return folders


@pytest.mark.slow
def test_evidence_runs_and_is_reported(evidence, tmp_path):
    tokens = ("log-mel", "ctc")
    results = {spec.key: json.loads(evidence.run(spec.key).read_text()) for spec in plan(tokens, (0,))}
    findings = [summary.judge(claim, results, (0,)) for claim in summary.claims(tokens)]
    text = audiopalm.report(findings, results, "command", "")
    assert all(claim.finding in text for claim in summary.claims(tokens))
    picture = plot.draw(findings, tmp_path / "audiopalm.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 100_000


@pytest.mark.slow
def test_finished_evidence_is_kept(evidence):
    spec = RunSpec(tokenizer="ctc", start="text", mix="combined", seed=0)
    before = evidence.run(spec.key).stat().st_mtime_ns
    audiopalm.run_once(spec, TINY, evidence)
    assert evidence.run(spec.key).stat().st_mtime_ns == before


@pytest.mark.slow
def test_pretraining_text_holds_nothing_that_is_held_out(evidence):
    from speechllm.data.prepare import read_corpus

    lines = set(parts.pretraining_texts(TINY, evidence))
    held_out = [record for split in ("test", "test_speakers") for record in read_corpus(evidence.corpus, split)]
    assert lines
    for record in held_out:
        for text in (record.text, record.translation.text):
            assert not any(text == part for line in lines for part in line.split(" = "))


def _result(hypotheses: list[str]) -> dict:
    references = ["one two three four five", "six seven eight nine ten"]
    output = {"references": {"translation": references}, "hypotheses": {"translation": hypotheses}}
    return {"outputs": {"test": output}}


@pytest.mark.parametrize("right_is_better", [True, False])
def test_a_finding_says_so_when_it_does_not_hold(right_is_better):
    right, wrong = ["one two three four five", "six seven eight nine ten"], ["one two", "ten nine"]
    sides = (summary.Side(label="a", split="test", field="translation"),
             summary.Side(label="b", start="scratch", split="test", field="translation"))  # fmt: skip
    claim = summary.Claim(finding="a beats b", measure="BLEU", better=sides[0], worse=sides[1])
    results = {
        sides[0].run_key(0): _result(right if right_is_better else wrong),
        sides[1].run_key(0): _result(wrong if right_is_better else right),
    }
    finding = summary.judge(claim, results, (0,))
    assert finding.holds is right_is_better
    assert (finding.gains[0] > 0) is right_is_better
    assert finding.verdict.startswith("holds" if right_is_better else "**does not hold**")


class FakeJudge:
    """Hears the same in everything: a recogniser takes its time over the noise of models that have learnt nothing."""

    name = "fake"

    def speaks(self, language):
        return True

    def transcribe(self, audios, language):
        return ["the bank is closed on monday"] * len(audios)


@pytest.fixture(scope="module")
def acoustic_folders(tmp_path_factory) -> acoustic_plan.Folders:
    folders, tiny = acoustic_plan.Folders(tmp_path_factory.mktemp("acoustic")), acoustic_plan.TINY
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "MoonshineJudge", FakeJudge)
        for step in [*acoustic_parts.shared_steps(tiny, folders), *acoustic_parts.model_steps(0, tiny, folders)]:
            step.function(*step.arguments)
        for measure in acoustic_evidence.FUNCTIONS.values():
            measure(0, tiny, folders)
    return folders


@pytest.mark.slow
def test_acoustic_evidence_runs_and_is_reported(acoustic_folders, tmp_path):
    out = acoustic_evidence.write_report(acoustic_plan.TINY, acoustic_folders, (0,), "command", tmp_path / "found.md")
    text = out.read_text()
    assert all(finding in text for finding in acoustic_summary.PUBLISHED)
    assert "nan" not in text
    picture = out.with_suffix(".png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 100_000
    results = acoustic_summary.load(acoustic_folders, (0,))
    # What the fake judge hears is another's sentence as much as the own.
    claim = next(claim for claim in acoustic_summary.claims() if claim.finding == acoustic_summary.KEPT)
    assert acoustic_summary.judge(claim, results).num_clear == 0


@pytest.mark.slow
def test_finished_acoustic_parts_are_kept(acoustic_folders):
    weights = [acoustic_folders.soundstorm(0), acoustic_folders.audiolm(0), acoustic_folders.codec(0)]
    before = [(folder / "model.safetensors").stat().st_mtime_ns for folder in weights]
    for step in acoustic_parts.model_steps(0, acoustic_plan.TINY, acoustic_folders):
        step.function(*step.arguments)
    assert [(folder / "model.safetensors").stat().st_mtime_ns for folder in weights] == before
    given = acoustic_plan.Folders(acoustic_folders.root / "other", acoustic_folders.quickstart)
    assert acoustic_parts.shared_steps(acoustic_plan.TINY, given) == []
    assert given.corpus == acoustic_folders.corpus


def test_minimal_pairs_differ_in_one_place_and_are_new():
    pairs = minimal_pairs.minimal_pairs(40, avoid=(), seed=0)
    assert len(pairs) == 40
    assert len({text for pair in pairs for text in pair}) == 80
    for first, second in pairs:
        a, b = first.split(), second.split()
        start = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
        end = next((i for i, (x, y) in enumerate(zip(a[::-1], b[::-1], strict=False)) if x != y), 0)
        # One slot: what is left of it and right of it is the same.
        assert a[:start] == b[:start]
        assert not end or a[-end:] == b[-end:]
        assert max(len(a), len(b)) - start - end <= 4
    avoided = minimal_pairs.minimal_pairs(40, avoid={pair[0] for pair in pairs}, seed=0)
    assert not {pair[0] for pair in pairs} & {text for pair in avoided for text in pair}


@pytest.mark.parametrize("right_is_better", [True, False])
def test_an_acoustic_claim_says_so_when_it_does_not_hold(right_is_better):
    claim = acoustic_summary.Claim(
        finding="a beats b", measure=acoustic_summary.CER, better=("a", "a"), worse=("b", "b")
    )
    right, wrong = [(1.0, 10.0), (0.0, 10.0), None], [(9.0, 10.0), (10.0, 10.0), (5.0, 10.0)]
    series = {"a": right if right_is_better else wrong, "b": wrong if right_is_better else right}
    finding = acoustic_summary.judge(claim, {0: series})
    assert finding.holds is right_is_better
    assert finding.num_clear == right_is_better
    assert sorted((*finding.better, *finding.worse)) == pytest.approx([5.0, 80.0])


def test_results_name_no_local_path():
    for path in (Path(machine.__file__).parent).rglob("*.md"):
        assert "/work" not in path.read_text(), path


def test_peak_memory_is_that_of_the_program_alone():
    from benchmarks.measure import peak_memory_mib

    held = bytearray(b"x" * 300 * 2**20)
    assert peak_memory_mib() > 300
    code = "from benchmarks.measure import peak_memory_mib; print(peak_memory_mib())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(child.stdout) < 300, "the parent's memory is not the child's"
    assert len(held) > 0


def test_workers_that_wait_write_what_one_process_writes(tmp_path):
    """The simulated half of the scaling benchmark; its real half, with Ray's own start, is run by its command."""
    from benchmarks import scaling
    from benchmarks.sleeping_tokenizer import SleepingTokenizer
    from speechllm.data.tokenize import read_tokens

    corpus = scaling.make_corpus(10, tmp_path / "corpus")
    took = scaling.run_local(corpus, functools.partial(SleepingTokenizer, 0.01), tmp_path / "out")
    assert took >= 10 * scaling.SECONDS * 0.01
    codes = {row.id: row.codes for row in read_tokens(tmp_path / "out")}
    assert len(codes) == 10
    assert len({tuple(found) for found in codes.values()}) == 10
    assert scaling.prepare_speed(4, 1, tmp_path).median > 1


def test_serving_load_finds_own_crossed_and_lost_answers(tmp_path):
    def item(text, samples):
        answers = {"transcription": text, "translation": text, "speech": samples}
        return serving.Item(b"", 1.0, "en", "fr", text, answers)

    rng = np.random.default_rng(0)
    sounds = [
        rng.normal(0, 0.1, 8_000 + 800 * i).astype(np.float32) * np.linspace(1, i, 8_000 + 800 * i) for i in (0, 5)
    ]
    items = [item("good morning to you", sounds[0]), item("turn on the light", sounds[1])]
    assert serving.judge("transcription", 0, "good morning to you", items) == "own"
    assert serving.judge("transcription", 0, "good morning to me", items) == "rounded"
    assert serving.judge("transcription", 0, "turn on the light", items) == "crossed"
    assert serving.judge("speech", 0, sounds[0] + 0.01, items) == "own"
    assert serving.judge("speech", 1, sounds[1] * 0.8, items) == "rounded"
    assert serving.judge("speech", 1, sounds[0], items) == "crossed"
    tally = serving.Tally()
    tally.add("speech", "own", 0.5, 2.0)
    tally.add_error("speech", RuntimeError("gone"))
    text = serving.describe(tally, [100.0, 110.0, 105.0], 2.0, 90.0)
    assert "| speech | 1 | 0 | 0 | 1 | 0.50 |" in text
    assert "1.0 seconds of speech" in text
    assert "1 x RuntimeError: gone" in text
