"""The LM exported to GGUF and run by llama.cpp writes the ids that ours writes."""

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, GgufConfig

from speechllm.errors import CheckpointError, ConfigError, DataError
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.sampling import SamplingConfig
from speechllm.hub import load_checkpoint
from speechllm.models.gguf_export import export_gguf
from speechllm.pipelines.system import SpeechSystem
from speechllm.serving.llama_cpp import LlamaCppDecoder, with_decoder
from speechllm.tasks import TaskTag
from tests.support.tiny import tiny_checkpoint, tiny_model, tiny_processor, tiny_speech

llama_cpp = pytest.importorskip("llama_cpp")
DECODING = DecodingConfig(max_text_tokens=40, max_audio_seconds=4.0)
TAGS = ("[ASR French]", "[ASR AST S2ST English French]", "[S2ST French English]")


def exported(folder, tied=False, dtype="f32", seed=0):
    # llama.cpp wants rows of 32 for some types and heads that are even; 64 is small enough.
    processor = tiny_processor()
    model = tiny_model(processor.vocabulary.size, tied=tied, width=64, seed=seed)
    path = folder / "lm.gguf"
    return model, processor, export_gguf(model, processor.text_tokenizer, processor.vocabulary, path, dtype=dtype)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_greedy_ids_are_ours(tmp_path, tied):
    model, processor, path = exported(tmp_path, tied)
    ours, theirs = LMDecoder(model, processor), LlamaCppDecoder.load(path, processor, num_threads=1)
    tags = [TaskTag.parse(tag) for tag in TAGS]
    prompts = [processor(tag, [tiny_speech(0.5 + i, seed=i)])[0] for i, tag in enumerate(tags)]
    grammars = [tag.output_modalities for tag in tags]
    wanted = ours.decode(prompts, grammars, DECODING)
    got = theirs.decode(prompts, grammars, DECODING)
    for a, b in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)
        assert (a.stop_reason, a.segments) == (b.stop_reason, b.segments)
        assert a.score == pytest.approx(b.score, abs=1e-3)
    assert len({len(one.ids) for one in wanted}) > 1


def test_half_precision_is_close(tmp_path):
    model, processor, path = exported(tmp_path, dtype="f16")
    assert path.stat().st_size < 0.6 * exported(tmp_path / "whole")[2].stat().st_size
    theirs = LlamaCppDecoder.load(path, processor, num_threads=1)
    tag = TaskTag.of("MT", "en", "fr")
    ours = LMDecoder(model.half().float(), processor)
    prompts = processor(tag, ["good morning"])
    (wanted,), (got,) = (one.decode(prompts, [("text",)], DECODING) for one in (ours, theirs))
    np.testing.assert_array_equal(wanted.ids[:10], got.ids[:10])


def test_transformers_reads_the_file_as_the_same_model(tmp_path):
    model, _, path = exported(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True)
    )
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), again.state_dict()[name].numpy(), err_msg=name)


def test_a_system_works_with_it(tmp_path):
    system = SpeechSystem(load_checkpoint(tiny_checkpoint(tmp_path / "tiny", acoustic=True)), decoding=DECODING)
    checkpoint = system.checkpoint
    path = export_gguf(
        checkpoint.model, checkpoint.processor.text_tokenizer, checkpoint.processor.vocabulary, tmp_path / "lm.gguf"
    )
    other = with_decoder(system, LlamaCppDecoder.load(path, checkpoint.processor, num_threads=1))
    recording = tiny_speech()
    assert other.transcribe([recording])[0].text == system.transcribe([recording])[0].text
    wanted, got = (one.speak(["good morning"])[0].audio for one in (system, other))
    np.testing.assert_array_equal(wanted.samples, got.samples)


def test_what_does_not_fit_is_refused(tmp_path):
    model, processor, path = exported(tmp_path)
    other = tiny_processor(num_codes=17)
    with pytest.raises(CheckpointError, match="vocabulary"):
        LlamaCppDecoder.load(path, other)
    with pytest.raises(CheckpointError, match="no GGUF file"):
        LlamaCppDecoder.load(tmp_path / "none.gguf", processor)
    decoder = LlamaCppDecoder.load(path, processor, num_threads=1)
    with pytest.raises(ConfigError, match="greedy"):
        decoder.decode([], [], DecodingConfig(text=SamplingConfig(temperature=1.0)))
    with pytest.raises(DataError, match="600 ids"):
        decoder.decode([np.zeros(600, np.int64)], [("text",)])
    for family in ("qwen2", "gpt2"):
        foreign = tiny_model(processor.vocabulary.size, family)
        with pytest.raises(CheckpointError, match=f"it is a {family}"):
            export_gguf(foreign, processor.text_tokenizer, processor.vocabulary, tmp_path / "foreign.gguf")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lm.gguf"]
