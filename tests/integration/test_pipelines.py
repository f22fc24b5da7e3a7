"""`transformers.pipeline` on our checkpoints, and on everybody else's in the same process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutomaticSpeechRecognitionPipeline, WhisperFeatureExtractor, pipeline

import speechllm
from speechllm.audio import save_audio
from speechllm.errors import CheckpointError, ConfigError
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.sampling import SamplingConfig
from speechllm.pipelines.hf import SpeechRecognitionPipeline, SpeechTranslationPipeline
from speechllm.pipelines.options import text_decoding
from speechllm.pipelines.system import SpeechSystem
from tests.support.tiny import tiny_checkpoint, tiny_model, tiny_processor, tiny_speech
from tests.support.tiny_others import tiny_t5, tiny_vits
from tests.support.tiny_whisper import tiny_whisper

ROOT = Path(__file__).parents[2]
AUDIO = tiny_speech(0.8)
SHORT = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("pipelines") / "checkpoint", acoustic=True)


@pytest.fixture(scope="module")
def recognise(folder: Path) -> SpeechRecognitionPipeline:
    return pipeline("automatic-speech-recognition", model=str(folder), device="cpu", generate_kwargs=SHORT)


def test_recognition_says_what_the_system_says(recognise: SpeechRecognitionPipeline, folder: Path):
    assert type(recognise) is SpeechRecognitionPipeline
    full = pipeline("automatic-speech-recognition", model=str(folder), device="cpu")
    (expected,) = SpeechSystem.from_pretrained(folder).transcribe([AUDIO], language="fr")
    assert full(AUDIO, language="fr") == {"text": expected.text}
    assert full(AUDIO, generate_kwargs={"language": "French"}) == {"text": expected.text}


def test_every_form_of_input(recognise: SpeechRecognitionPipeline, tmp_path: Path):
    path = save_audio(AUDIO, tmp_path / "a.wav")
    array = {"array": AUDIO.samples, "sampling_rate": AUDIO.sample_rate}
    raw = {"raw": AUDIO.samples, "sampling_rate": AUDIO.sample_rate}
    expected = recognise(AUDIO)
    assert set(expected) == {"text"}
    assert recognise(array) == recognise(raw) == expected
    assert recognise(str(path)) == recognise(path) == recognise(path.read_bytes())
    listed = recognise([AUDIO, array, raw], batch_size=2)
    assert listed == [expected] * 3
    assert recognise([AUDIO]) == [expected]
    assert list(recognise(item for item in [AUDIO, array])) == [expected] * 2


def test_options(recognise: SpeechRecognitionPipeline):
    short, beams = recognise(AUDIO, max_new_tokens=1), recognise(AUDIO, num_beams=3)
    assert len(short["text"]) <= len(recognise(AUDIO)["text"])
    assert set(beams) == {"text"}
    with pytest.raises(ConfigError, match=r"unknown option 'max_new_token' for .*; did you mean 'max_new_tokens'"):
        recognise(AUDIO, generate_kwargs={"max_new_token": 3})


def test_options_that_would_change_nothing_are_refused(recognise: SpeechRecognitionPipeline, folder: Path):
    for options in ({"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.9, "do_sample": False}):
        with pytest.raises(ConfigError, match="pass do_sample=True"):
            recognise(AUDIO, generate_kwargs=options)
    assert set(recognise(AUDIO, do_sample=True, temperature=0.7, top_k=3)) == {"text"}
    translate = pipeline("speech-translation", model=str(folder), device="cpu", src_lang="en", tgt_lang="fr", **SHORT)
    with pytest.raises(ConfigError, match="unknown option 'language' for speech-translation"):
        translate(AUDIO, generate_kwargs={"language": "en"})


def test_do_sample_false_switches_sampling_off():
    sampled = DecodingConfig(text=SamplingConfig(temperature=5.0))
    assert text_decoding(sampled, {}).text == sampled.text
    assert text_decoding(sampled, {"do_sample": False}).text.is_greedy
    assert text_decoding(sampled, {"do_sample": True, "top_k": 2}).text == SamplingConfig(temperature=1.0, top_k=2)


def test_translation(folder: Path):
    translate = pipeline("speech-translation", model=str(folder), device="cpu", src_lang="en", tgt_lang="fr", **SHORT)
    assert type(translate) is SpeechTranslationPipeline
    system = SpeechSystem.from_pretrained(folder)
    (expected,) = system.run("[AST English French]", [AUDIO])
    whole = pipeline("speech-translation", model=str(folder), device="cpu")
    assert whole(AUDIO, src_lang="en", tgt_lang="fr") == {"text": expected.text}
    assert set(translate(AUDIO, return_transcript=True)) == {"text", "transcript"}
    spoken = translate(AUDIO, return_audio=True)
    assert spoken["audio"].ndim == 1
    assert spoken["sampling_rate"] == 16_000
    assert len(translate([AUDIO] * 3, batch_size=2)) == 3
    with pytest.raises(ConfigError, match="needs two languages"):
        whole(AUDIO)


def test_a_loaded_model_and_processor(folder: Path):
    processor = tiny_processor()
    model = tiny_model(processor.vocabulary.size)
    given = pipeline("automatic-speech-recognition", model=model, processor=processor, device="cpu", **SHORT)
    named = pipeline("automatic-speech-recognition", model=str(folder), device="cpu", **SHORT)
    assert given(AUDIO) == named(AUDIO)
    with pytest.raises(CheckpointError, match="does not say where it came from"):
        pipeline("automatic-speech-recognition", model=model, device="cpu")


STOCK = """
import json, sys
if sys.argv[1] == "ours":
    import speechllm
import numpy as np
import torch
from transformers import pipeline
recognise = pipeline("automatic-speech-recognition", model=sys.argv[2], device="cpu")
samples = np.sin(np.arange(16_000) / 20).astype(np.float32)
text = recognise({"raw": samples, "sampling_rate": 16_000}, generate_kwargs={"max_new_tokens": 4})["text"]
speak = pipeline("text-to-speech", model=sys.argv[3], device="cpu")
torch.manual_seed(0)
said = speak("hello there", forward_params={"noise_scale": 0.0, "noise_scale_duration": 0.0})
answers = [text, said["audio"].tolist(), said["sampling_rate"]]
answers += [[type(p).__module__, type(p).__name__, p.model._get_name(), type(p.feature_extractor).__name__,
    type(p.tokenizer).__name__, type(p.processor).__name__, p._load_feature_extractor] for p in (recognise, speak)]
for task in ("translation", "translation_en_to_fr", "summarization"):
    try:
        pipeline(task, model=sys.argv[4], device="cpu")
    except KeyError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_others_in_the_same_process_are_not_disturbed(tmp_path: Path):
    """Whisper, VITS and T5 do, and refuse, the same with us and without us."""
    folders = [tiny_whisper(tmp_path / "whisper"), tiny_vits(tmp_path / "vits"), tiny_t5(tmp_path / "t5")]
    recognise = pipeline("automatic-speech-recognition", model=str(folders[0]), device="cpu")
    assert type(recognise) is AutomaticSpeechRecognitionPipeline
    assert type(recognise.feature_extractor) is WhisperFeatureExtractor
    ours, theirs = (
        subprocess.run(
            [sys.executable, "-c", STOCK, who, *map(str, folders)], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for who in ("ours", "theirs")
    )
    assert ours == theirs
    answers = json.loads(ours)
    assert "AutomaticSpeechRecognitionPipeline" in answers[3]
    assert "TextToAudioPipeline" in answers[4]
    assert len(answers) == 8
    assert all("has been removed from transformers" in message for message in answers[5:])


def test_a_missing_feature_extractor_is_still_an_error(tmp_path: Path):
    whisper = tiny_whisper(tmp_path / "whisper")
    (whisper / "preprocessor_config.json").unlink()
    with pytest.raises(OSError, match=r"preprocessor_config\.json"):
        pipeline("automatic-speech-recognition", model=str(whisper), device="cpu")


IMPORT = """
import sys, time
start = time.process_time()
import speechllm
seconds = time.process_time() - start
heavy = [name for name in ("torch", "transformers", "numpy", "scipy") if name in sys.modules]
assert not heavy, heavy
assert seconds < 0.5, seconds
from transformers.pipelines import PIPELINE_REGISTRY
assert "speech-translation" in PIPELINE_REGISTRY.get_supported_tasks()
"""


@pytest.mark.parametrize("before", ["", "from transformers import pipeline; pipeline.__doc__\n"])
def test_import_is_light_and_registers_in_either_order(before: str):
    code = (
        before + IMPORT
        if not before
        else before + "import speechllm\n" + IMPORT.partition("assert seconds < 0.5, seconds\n")[2]
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_names_load_on_first_use():
    for name in speechllm.__all__:
        assert getattr(speechllm, name) is not None
    assert speechllm.pipeline is pipeline
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = speechllm.nothing
