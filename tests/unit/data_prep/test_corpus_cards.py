"""Cards: every corpus has one, it names the corpus as the command line does, and the page of them is current."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from speechllm.cli.build import find_plugin, parse_options
from speechllm.cli.corpora import all_cards, card_of
from speechllm.cli.main import app
from speechllm.data.cards import CorpusCard, render_card
from speechllm.errors import DataError, TaskError

ROOT = Path(__file__).parents[3]
OWN_DATA = {"table", "dataset", "spoken-text"}
CARDS = {name: card for name, card in all_cards().items() if card is not None}


def test_every_corpus_has_a_card_but_those_that_read_the_users_own_data():
    assert set(all_cards()) - set(CARDS) == OWN_DATA


@pytest.mark.parametrize("name", CARDS)
def test_a_card_says_what_its_corpus_is(name):
    card = CARDS[name]
    assert card.name == name
    assert card.homepage.startswith("https://")
    assert all(figure.source for figure in card.figures)
    assert set(card.tasks) <= {"ASR", "AST", "S2ST", "TTS", "MT"}
    text = render_card(card)
    for fact in (card.licence, card.title, *(figure.value for figure in card.figures), *card.papers, *card.problems):
        assert fact in text


@pytest.mark.parametrize("name", CARDS)
def test_the_example_of_a_card_has_options_that_its_reader_knows(name):
    import shlex

    records = find_plugin("corpora", name)
    assert parse_options(records, shlex.split(CARDS[name].example))


def test_the_page_of_cards_is_what_the_command_writes():
    result = CliRunner().invoke(app, ["corpora", "--markdown"])
    assert result.exit_code == 0
    page = (ROOT / "docs" / "corpora.md").read_text(encoding="utf-8")
    assert page == result.stdout, "run: speechllm corpora --markdown > docs/corpora.md"


def test_the_command_lists_corpora_and_shows_one():
    listed = CliRunner().invoke(app, ["corpora"])
    assert all(name in listed.stdout for name in all_cards())
    shown = CliRunner().invoke(app, ["corpora", "fleurs"])
    assert shown.stdout == render_card(CARDS["fleurs"])
    assert "table reads your own data" in CliRunner().invoke(app, ["corpora", "table"]).stdout
    wrong = CliRunner().invoke(app, ["corpora", "flers"])
    assert wrong.exit_code == 2
    assert "did you mean 'fleurs'" in wrong.stderr


def test_a_module_without_a_card_has_none():
    assert card_of("data_prep.table") is None


def test_a_card_with_a_hole_is_refused():
    fields = dict.fromkeys(("name", "title", "summary", "homepage", "licence", "layout", "example"), "x")
    CorpusCard(**fields, languages=("en",), tasks=("ASR",))
    with pytest.raises(DataError, match="the card of x has no licence"):
        CorpusCard(**fields | {"licence": ""}, languages=("en",), tasks=("ASR",))
    with pytest.raises(TaskError, match="unknown language 'klingon'"):
        CorpusCard(**fields, languages=("klingon",), tasks=("ASR",))
