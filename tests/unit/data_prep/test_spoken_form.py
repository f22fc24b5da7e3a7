"""Text as it is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.spoken_form import held_apart, in_spoken_form, spoken_form
from speechllm.data.records import Record, Translation
from speechllm.errors import DataError


@given(st.text())
def test_a_spoken_form_is_its_own_spoken_form(text):
    once = spoken_form(text, "en")
    assert spoken_form(once, "en") == once


@given(st.text())
def test_no_blank_stands_at_an_end_or_beside_another(text):
    assert spoken_form(text, "fr") == " ".join(spoken_form(text, "fr").split())


@pytest.mark.parametrize(
    ("text", "language", "said"),
    [
        ("Press 1, please!", "en", "press one please"),
        ("L\u2019homme a 2 chiens.", "fr", "l'homme a deux chiens"),
        ("'quoted' -- it's snake_case", "en", "quoted it's snake case"),
        ("Call 5551234", "en", "call five five five one two three four"),
        ("room4b", "en", "room four b"),
        ("\u00a1Marque 21!", "es", "marque veintiuno"),
        ("[descending tones]", "en", ""),
        ("Dash [-], not (never) said", "en", "dash not said"),
        ("...", "en", ""),
        ("rock ''n' roll' a''b", "en", "rock n roll a b"),
        ("\u0928\u092e\u0938\u094d\u0924\u0947!", "hi", "\u0928\u092e\u0938\u094d\u0924\u0947"),
        ("\u0e1c\u0e39\u0e49 'x'", "th", "\u0e1c\u0e39\u0e49 x"),
    ],
)
def test_examples(text, language, said):
    assert spoken_form(text, language) == said


def test_numbers_in_a_language_without_number_words():
    with pytest.raises(DataError, match="num2words cannot say numbers in 'yue'; spell '7' out"):
        spoken_form("7", "yue")


def test_records_in_spoken_form_keep_all_but_their_texts():
    record = Record("a", "train", "en", "Press 1.", b"flac", "x", "pseudo", Translation("fr", "Tapez 1.", b"other"))
    (made,) = in_spoken_form([record])
    assert (made.text, made.translation.text) == ("press one", "tapez un")
    assert (made.id, made.audio, made.label_source, made.translation.audio) == ("a", b"flac", "pseudo", b"other")


def test_no_text_of_a_held_out_record_stays_in_training():
    records = [
        Record("1", "train", "en", "goodbye", b""),
        Record("2", "test", "en", "goodbye", b""),
        Record("3", "train", "en", "hello", b"", translation=Translation("fr", "salut")),
        Record("4", "validation", "en", "hi", b"", translation=Translation("fr", "salut")),
        Record("5", "train", "fr", "goodbye", b""),
        Record("6", "train", "en", "", b"a"),
        Record("7", "test", "en", "", b"b"),
    ]
    assert [record.id for record in held_apart(records)] == ["2", "4", "5", "6", "7"]
