import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechllm.errors import ConfigError
from speechllm.metrics.normalise import basic, make_normaliser


@given(st.text())
def test_basic_twice_is_basic_once(text: str):
    assert basic(basic(text)) == basic(text)


@given(st.text(alphabet="abc äéß.,!?-'\t\n"))
def test_basic_does_not_see_case_punctuation_or_blanks(text: str):
    assert basic("  " + text.replace(",", " , ").replace("a", "A") + "\n") == basic(text)


@pytest.mark.parametrize(
    ("language", "written", "said"),
    [
        ("en", "Twenty-one trains", "21 trains"),
        ("en", "the third of May at nine twenty one", "The 3rd of May, at 9:21."),
        ("en", "one thousand two hundred at three", "1,200 at 3:00"),
        ("fr", "le premier mai, vingt-et-un euros", "Le 1er mai: 21 euros"),
        ("fr", "dix mille", "10 000"),
        ("de", "einundzwanzig Züge", "21 Züge"),
        ("es", "veintiuno", "21"),
        ("it", "ventuno", "21"),
    ],
)
def test_spoken_numbers_and_digits_are_the_same(language: str, written: str, said: str):
    spoken = make_normaliser("spoken", language)
    assert spoken(written) == spoken(said)


def test_accents_stay_and_widths_do_not():
    assert basic("Ｅｔé déjà") == "eté déjà"


def test_id_says_what_was_done():
    assert make_normaliser("spoken", "en").id == "spoken.v1.en"
    assert make_normaliser("spoken", "xh").id == "spoken.v1.xh-digits-kept"
    assert make_normaliser("spoken", "xh")("ngu 21") == "ngu 21"


def test_huge_numbers_stay():
    assert make_normaliser("spoken", "en")("9" * 40) == "9" * 40


def test_whisper_normalisers():
    assert make_normaliser("whisper", "en")("It's Mr. Smith") == "it is mister smith"
    assert make_normaliser("whisper", "fr")("L'été !") == "l été"


def test_unknown_name_suggests():
    with pytest.raises(ConfigError, match="did you mean 'spoken'"):
        make_normaliser("spokn")
