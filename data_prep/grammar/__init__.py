"""A parallel grammar of everyday utterances in English, French, German, Spanish and Italian."""

from data_prep.grammar.sentences import LANGUAGES, Sentence, Splits, realise, sentences, split

__all__ = ["LANGUAGES", "Sentence", "Splits", "realise", "sentences", "split"]
