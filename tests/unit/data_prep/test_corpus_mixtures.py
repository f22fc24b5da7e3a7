"""From shipped files to ids: one example of every task that a corpus serves, straight through the pipeline."""

import pytest

from data_prep import (
    common_voice,
    covost2,
    cvss,
    fleurs,
    gigaspeech,
    librispeech,
    libritts,
    mls,
    mustc,
    parallel_text,
    pseudo_label,
    voxpopuli,
)
from speechllm.data.mixture import MixtureComponent, MixtureConfig, load_mixture
from speechllm.data.prepare import prepare_corpus
from speechllm.data.tokenize import tokenize_corpus
from tests.support import shipped_corpora as shipped
from tests.support.shipped_corpora import sound, write
from tests.support.tiny import tiny_processor
from tests.unit.data_prep.test_made_speech import speak


def read_covost(folder):
    return covost2.records(shipped.common_voice(folder), "fr", translations=shipped.covost(folder / "covost"))


def read_cvss(folder):
    return cvss.records(shipped.cvss(folder / "cvss"), "fr", common_voice=shipped.common_voice(folder / "cv"))


def read_fleurs(folder):
    shipped.fleurs(folder, "en_us", 350)
    return fleurs.records(shipped.fleurs(folder, "fr_fr", 300), "fr", target="en")


def read_labelled(folder):
    write(folder, {"labels.tsv": "0\tbonjour\n", "radio/0.wav": sound(".wav", 300)})
    return pseudo_label.records(folder / "radio", "fr", folder / "labels.tsv")


READERS = {
    common_voice: lambda folder: common_voice.records(shipped.common_voice(folder), "fr"),
    covost2: read_covost,
    cvss: read_cvss,
    voxpopuli: lambda folder: voxpopuli.records(shipped.voxpopuli(folder), "fr", target="en"),
    fleurs: read_fleurs,
    librispeech: lambda folder: librispeech.records(shipped.librispeech(folder)),
    libritts: lambda folder: libritts.records(shipped.libritts(folder)),
    mls: lambda folder: mls.records(shipped.mls(folder), "fr"),
    gigaspeech: lambda folder: gigaspeech.records(shipped.gigaspeech(folder)),
    mustc: lambda folder: mustc.records(shipped.mustc(folder), "de"),
    parallel_text: lambda folder: parallel_text.records(shipped.ted_text(folder), speak=speak),
    pseudo_label: read_labelled,
}


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.mark.parametrize("corpus", READERS, ids=lambda module: module.__name__.split(".")[-1])
def test_a_corpus_serves_the_tasks_of_its_card(tmp_path, processor, corpus):
    prepare_corpus(READERS[corpus](tmp_path / "shipped"), tmp_path / "corpus")
    tokenize_corpus(tmp_path / "corpus", processor.semantic_tokenizer, tmp_path / "tokens")
    tasks = [*corpus.card().tasks, *(["ASR AST S2ST"] if {"AST", "S2ST"} <= set(corpus.card().tasks) else [])]
    config = MixtureConfig(components=[MixtureComponent(tasks=task, folder=str(tmp_path / "tokens")) for task in tasks])
    mixture = load_mixture(config, processor)
    found = {}
    for index in range(64):
        found.setdefault(mixture.segments(index).tag.split("]")[0], mixture.example(index))
    names = {" ".join(part for part in tag.strip("[").split() if part.isupper() or part == "S2ST") for tag in found}
    assert names == set(tasks)
    for example in found.values():
        assert example.loss_mask.any()
        assert len(example.input_ids) > 8
