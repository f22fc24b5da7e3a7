"""The grammar: complete in every language, one to one in translation, splits without common sentences."""

import pytest

from data_prep.grammar import LANGUAGES, realise, sentences, split
from data_prep.grammar.frames import FRAMES, SLOTS
from data_prep.grammar.sentences import _grammar, _realised
from speechllm.errors import DataError, TaskError

ALL = tuple(LANGUAGES)


@pytest.mark.parametrize("language", ALL)
def test_every_frame_has_words_and_no_hole(language):
    assert set(_grammar(language).TEMPLATES) == set(FRAMES)
    for frame in FRAMES:
        for sentence in _realised(frame, [language]):
            (text,) = sentence.texts
            assert not set(text) & set("{}|_0123456789.,?!-"), text
            assert text == " ".join(text.lower().split())
            assert 2 <= len(text.split()) <= 12


@pytest.mark.parametrize("language", [language for language in ALL if language != "en"])
def test_no_english_word_is_left_untranslated(language):
    # Names and cities that are spelt alike may be missing in a lexicon; all other kinds must be complete.
    lexicon = _grammar(language).LEXICON
    for kind, values in SLOTS.items():
        if kind not in ("name", "city"):
            assert set(values) <= set(lexicon[kind]), (language, kind)


@pytest.mark.parametrize("other", [language for language in ALL if language != "en"])
def test_translation_is_one_to_one(other):
    pairs = [sentence.texts for sentence in sentences(("en", other), 1700)]
    assert len({here for here, _ in pairs}) == len({there for _, there in pairs}) == 1700


def test_all_languages_together_share_no_sentence_between_splits():
    parts = split(sentences(ALL, 1700, seed=1), 150, 150)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [1400, 150, 150]
    for side in range(len(ALL)):
        train, validation, test = (
            {item.texts[side] for item in part} for part in (parts.train, parts.validation, parts.test)
        )
        assert not train & validation
        assert not train & test
        assert not validation & test


def test_held_out_sentences_use_known_words():
    parts = split(sentences(("en", "fr"), 1700), 150, 150)
    for side in range(2):
        known = {word for item in parts.train for word in item.texts[side].split()}
        held_out = {word for item in parts.validation + parts.test for word in item.texts[side].split()}
        assert held_out <= known


def test_the_seed_decides():
    assert sentences(("en", "fr"), 50, seed=3) == sentences(("en", "fr"), 50, seed=3)
    assert sentences(("en", "fr"), 50, seed=3) != sentences(("en", "fr"), 50, seed=4)
    assert len({item.frame for item in sentences(("en", "fr"), 1700)}) == len(FRAMES)


@pytest.mark.parametrize(
    ("frame", "values", "expected"),
    [
        (
            "open_at",
            {"place": "museum", "time": "3:30"},
            [
                "the museum opens at half past three",
                "le musée ouvre à trois heures et demie",
                "das museum öffnet um halb vier",
                "el museo abre a las tres y media",
                "il museo apre alle tre e mezza",
            ],
        ),
        (
            "bring",
            {"thing": "key", "color": "white"},
            [
                "please bring me the white key",
                "apportez moi la clé blanche s'il vous plaît",
                "bringen sie mir bitte den weißen schlüssel",
                "tráigame la llave blanca por favor",
                "mi porti la chiave bianca per favore",
            ],
        ),
        (
            "event_date",
            {"event": "exam", "day": "8", "month": "may"},
            [
                "the exam is on the eighth of may",
                "l'examen est le huit mai",
                "die prüfung ist am achten mai",
                "el examen es el ocho de mayo",
                "l'esame è l'otto maggio",
            ],
        ),
        (
            "next_to",
            {"place": "bank", "place2": "hotel"},
            [
                "the bank is next to the hotel",
                "la banque est à côté de l'hôtel",
                "die bank ist neben dem hotel",
                "el banco está al lado del hotel",
                "la banca è accanto all'hotel",
            ],
        ),
    ],
)
def test_agreement_case_and_elision(frame, values, expected):
    assert [realise(frame, values, language) for language in ALL] == expected


def test_impossible_wishes_are_refused():
    with pytest.raises(DataError, match="no grammar for 'nl'"):
        sentences(("en", "nl"), 10)
    with pytest.raises(TaskError, match="unknown language 'xx'"):
        sentences(("en", "xx"), 10)
    with pytest.raises(DataError, match=r"only .* different sentences of the 1,000,000"):
        sentences(("en", "fr"), 1_000_000)
    with pytest.raises(DataError, match="10 sentences are to be held out, but there are only 5"):
        split(sentences(("en", "fr"), 5), 5, 5)
