"""A parallel grammar of everyday utterances in English, French, German, Spanish and Italian."""

from data_prep.grammar.sentences import LANGUAGES, Sentence, Splits, every_text, realise, sentences, split

__all__ = ["LANGUAGES", "Sentence", "Splits", "every_text", "realise", "sentences", "split"]
