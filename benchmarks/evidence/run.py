"""One run: extend the text LM, train it on task-tagged tokens, decode unseen sentences, keep what it said.

result = train_and_score(spec, budget, folders)
result["outputs"]["test"]["hypotheses"]["translation"]       # 300 lines, both directions
"""

import tempfile
import time
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedModel

from benchmarks.evidence.parts import training_config
from benchmarks.evidence.plan import LANGUAGES, MIXTURES, OUTPUTS, Budget, Folders, RunSpec
from speechllm.data.collate import Collator
from speechllm.data.mixture import MixtureComponent, MixtureConfig, load_mixture
from speechllm.data.packing import PackedRows
from speechllm.data.tokenize import TokenRow, read_tokens
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoded import DecodeReport
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.models.causal_lm import BaseModelConfig, extend_causal_lm, load_base_lm, num_text_rows
from speechllm.processor import UnifiedProcessor
from speechllm.segments import CodeSegment, TextSegment
from speechllm.tasks import TaskTag
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.training.optim import OptimizerConfig
from speechllm.training.trainer import UnifiedTrainer
from speechllm.vocabulary import Vocabulary

SPLITS = ("test", "test_speakers")


def train_and_score(spec: RunSpec, budget: Budget, folders: Folders) -> dict[str, Any]:
    """Return the run's settings, cost, and outputs beside their references (JSON-ready)."""
    model, processor = extended_model(spec, budget, folders)
    start, cpu = time.perf_counter(), time.process_time()
    history, num_tokens = train(model, processor, spec, budget, folders)
    cost = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu, "tokens": num_tokens}
    tasks, tokens = OUTPUTS[spec.mix], folders.tokens(spec.tokenizer)
    outputs = {split: decode(model, processor, list(read_tokens(tokens, split)), tasks) for split in SPLITS}
    return {"spec": asdict(spec), "budget": asdict(budget), "cost": cost, "history": history, "outputs": outputs}


def extended_model(spec: RunSpec, budget: Budget, folders: Folders) -> tuple[PreTrainedModel, UnifiedProcessor]:
    """Return the LM with rows for the codes; `scratch` has the text LM's size and tokenizer and random weights."""
    folder = str(folders.text_lm(spec.seed))
    source = BaseModelConfig(source=folder)
    if spec.start == "scratch":
        source = BaseModelConfig(
            text_tokenizer=folder, hidden_size=budget.hidden_size, num_layers=budget.num_layers, seed=spec.seed + 100
        )
    model, text_tokenizer = load_base_lm(source)
    semantic = SemanticTokenizer.from_pretrained(folders.semantic(spec.tokenizer))
    vocabulary = Vocabulary.for_speech(num_text_rows(model), semantic.codebook_size)
    model = extend_causal_lm(model, vocabulary, init="centroid", centroids=semantic.centroids, seed=spec.seed)
    return model, UnifiedProcessor(text_tokenizer, vocabulary, semantic)


def train(
    model: PreTrainedModel, processor: UnifiedProcessor, spec: RunSpec, budget: Budget, folders: Folders
) -> tuple[list[dict[str, float]], int]:
    """Train in place; return the log and the number of tokens that were packed."""
    tokens, tasks = str(folders.tokens(spec.tokenizer)), MIXTURES[spec.mix]
    mixture = load_mixture(
        MixtureConfig(components=[MixtureComponent(tasks=name, folder=tokens) for name in tasks], seed=spec.seed),
        processor,
    )
    rows = PackedRows(mixture.example, budget.max_tokens)
    collator = Collator(pad_id=processor.eos_id, row_tokens=budget.max_tokens, tags=tasks)
    config = training_config(budget, budget.steps, spec.seed)
    optimizer = OptimizerConfig(kind="muon", learning_rate=budget.learning_rate)
    with tempfile.TemporaryDirectory() as folder:
        trainer = UnifiedTrainer(model, rows, collator, processor.vocabulary, config, optimizer, folder)
        history = trainer.run()
    # Training leaves its autocast in the place of `forward`; decoding is to run in the weights' own float32.
    for name in ("forward", "_original_forward"):
        vars(model).pop(name, None)
    return history, rows.report.tokens


def decode(model: PreTrainedModel, processor: UnifiedProcessor, rows: list[TokenRow], tasks: str) -> dict[str, Any]:
    """Decode greedily in both directions; return references and hypotheses of each output field, and counts."""
    prompts, grammars, references = [], [], []
    tag = TaskTag.of(tasks, *LANGUAGES)
    for reverse in (False, True):
        source, target = LANGUAGES[::-1] if reverse else LANGUAGES
        tag = TaskTag.of(tasks, source, target)
        for row in rows:
            fields = row.fields(reverse)
            audio = fields["audio"]
            assert not isinstance(audio, str), "audio is codes"
            prompts.append(processor.encode_prompt(tag.prompt(CodeSegment(audio))))
            grammars.append(tag.output_modalities)
            references.append({field: fields[field] for field in tag.targets})
    decoded = LMDecoder(model, processor).decode(prompts, grammars, DecodingConfig(max_text_tokens=60, batch_size=50))
    hypotheses = []
    for one in decoded:
        texts = [segment.text if isinstance(segment, TextSegment) else "" for segment in one.segments]
        hypotheses.append(dict(zip(tag.targets, texts, strict=True)))
    return {
        "references": {field: [reference[field] for reference in references] for field in tag.targets},
        "hypotheses": {field: [hypothesis[field] for hypothesis in hypotheses] for field in tag.targets},
        "report": asdict(DecodeReport.of(decoded)),
    }
