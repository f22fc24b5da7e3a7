"""Text as it is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.spoken_form import spoken_form
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
        ("[descending tones]", "en", "descending tones"),
        ("...", "en", ""),
    ],
)
def test_examples(text, language, said):
    assert spoken_form(text, language) == said


def test_numbers_in_a_language_without_number_words():
    with pytest.raises(DataError, match="num2words cannot say numbers in 'yue'; spell '7' out"):
        spoken_form("7", "yue")
