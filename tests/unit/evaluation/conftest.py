from pathlib import Path

import pytest

from speechllm.audio import encode_flac
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation
from speechllm.evaluation.judges import Judges
from tests.support.toy_speech import WORDS, ToyJudge, ToySystem, tone


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sentences in English with their French side, three in the other direction."""
    records = []
    for number in range(6):
        sides = [("en", "fr"), ("fr", "en")][: 2 if number < 3 else 1]
        for source, target in sides:
            records.append(
                Record(
                    id=f"{source}-{number}",
                    split="test",
                    language=source,
                    text=WORDS[source][number],
                    audio=encode_flac(tone(source, number)),
                    speaker=f"speaker{number % 2}",
                    translation=Translation(
                        target, WORDS[target][number], encode_flac(tone(target, number)), f"speaker{number % 2}"
                    ),
                )
            )
    folder = tmp_path_factory.mktemp("toy") / "corpus"
    prepare_corpus(records, folder)
    return folder


@pytest.fixture
def judges() -> Judges:
    return Judges(ToyJudge("en"), ToyJudge("fr"))


@pytest.fixture
def system() -> ToySystem:
    return ToySystem()


@pytest.fixture
def mute_system() -> ToySystem:
    return ToySystem(can_speak=False)
