import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechllm.errors import TaskError
from speechllm.segments import CodeSegment, TextSegment
from speechllm.tasks import ASR, AST, LANGUAGE_NAMES, MT, S2ST, TTS, TaskTag, language_code, language_name

languages = st.sampled_from(sorted(LANGUAGE_NAMES))
chains = st.sampled_from([[ASR], [AST], [S2ST], [ASR, AST], [AST, S2ST], [ASR, AST, S2ST], [MT], [TTS], [MT, TTS]])


@given(chains, languages, languages)
def test_tag_round_trips_through_its_text(tasks, source, target):
    tag = TaskTag.of([task.name for task in tasks], source, target)
    assert TaskTag.parse(str(tag)) == tag
    assert [TaskTag.of(tag.name, source, target)] == [tag]


@given(languages)
def test_language_code_and_name_are_inverse(code):
    assert language_code(language_name(code)) == code
    assert len(language_name(code).split()) == 1


@pytest.mark.parametrize(
    ("tag", "text", "modalities"),
    [
        (TaskTag.of("ASR", "fr"), "[ASR French]", ("text",)),
        (TaskTag.of("AST", "en", "French"), "[AST English French]", ("text",)),
        (TaskTag.of("TTS", "English", "fr"), "[TTS English]", ("audio",)),
        (TaskTag.of("ASR AST S2ST", "en-GB", "fr"), "[ASR AST S2ST English French]", ("text", "text", "audio")),
    ],
)
def test_tags_are_written_as_in_the_paper(tag, text, modalities):
    # AudioPaLM, arXiv:2306.12925, section 4.2
    assert str(tag) == text
    assert tag.output_modalities == modalities


def test_example_takes_only_the_fields_of_the_task():
    tag = TaskTag.of("ASR AST", "en", "fr")
    fields = {"audio": [3, 1], "transcript": "good morning", "translation": "bonjour", "translated_audio": [9]}
    example = tag.example(fields)
    assert example.prompt == (TextSegment("[ASR AST English French]"), CodeSegment(np.array([3, 1])))
    assert example.target == (TextSegment("good morning"), TextSegment("bonjour"))
    assert tag.output_language("transcript") == "en"
    assert tag.output_language("translation") == "fr"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: TaskTag.parse("ASR French"), r"is no task tag; expected the form \[ASR French\]"),
        (lambda: TaskTag.parse("[ASRR French]"), "unknown task 'ASRR'; did you mean 'ASR'"),
        (lambda: TaskTag.parse("[ASR Frensh]"), "unknown language 'Frensh'; did you mean 'French'"),
        (lambda: TaskTag.parse("[ASR]"), "then one or two languages"),
        (lambda: TaskTag.parse("[]"), "is no task tag"),
        (lambda: TaskTag.parse("[ASR English French]"), "ASR needs one language, two were given"),
        (lambda: TaskTag.parse("[AST English]"), "AST needs two languages"),
        (lambda: TaskTag.of("ASR MT", "en", "fr"), "read different inputs"),
        (lambda: TaskTag.of("ASR ASR", "en"), "write the same output twice"),
        (lambda: TaskTag.of("AST", "en", "xx"), "unknown language 'xx'"),
        (lambda: TaskTag.of("", "en"), "needs at least one task"),
        (lambda: TaskTag.of("ASR", "en").example({"audio": [1], "transcript": ""}), "needs the field 'transcript'"),
        (
            lambda: TaskTag.of("ASR", "en").example({"audio": "hi", "transcript": "x"}),
            "'audio' is text, expected audio",
        ),
    ],
)
def test_mistakes_get_one_clear_line(act, message):
    with pytest.raises(TaskError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)
