"""What is trained and measured, with how much, and where it lies: the design of the miniature.

    folders = Folders(Path("runs/acoustic"))
    folders.soundstorm(seed=0)               # runs/acoustic/models/0/soundstorm
    folders.result("voices", seed=0)         # runs/acoustic/results/voices-0.json

Corpus, CTC encoder and semantic codes are the quickstart's, made once. Codec, SoundStorm and AudioLM's coarse and fine
stages are made anew for every seed, and so are all draws.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.evidence.acoustic.language_plan import LanguageBudget
from recipes.quickstart.config import CONFIG, QuickstartConfig
from speechllm.config import load_config
from speechllm.models.token_lm import DecoderConfig, StageLMConfig
from speechllm.training.audiolm import AudioLMTrainConfig, StageTrainConfig
from speechllm.training.dialogues import DialogueConfig
from speechllm.training.loop import LoopConfig
from speechllm.training.optim import OptimizerConfig
from speechllm.training.soundstorm import SoundStormStageConfig

PROMPT_SECONDS = 3.0
"Of every voice prompt, as in both papers."
SPLITS = ("test", "test_speakers")
"Unseen sentences by training speakers, and by unseen ones."


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The same for every seed: sizes, steps, number of items."""

    quickstart: tuple[str, ...] = ()
    "Overrides of the quickstart's config, for corpus, encoder, semantic codes and codec."
    soundstorm_steps: int = 320
    width: int = 192
    "Of the trunks of all three models."
    num_layers: int = 4
    coarse_steps: int = 600
    fine_steps: int = 300
    batch_size: int = 4
    "Rows of a batch of AudioLM's stages."
    window_seconds: float = 7.0
    "Of the coarse stage: a prompt, and the longest sentence behind it."
    num_coarse: int = 2
    "Of 6 levels: a third of them, as in AudioLM."
    code_noise: float = 0.5
    "Share of random codes among those that the stages read of what they write, in training."
    learning_rate: float = 4e-3
    coarse_temperature: float = 0.5
    fine_temperature: float = 0.0
    "Greedy: what two levels of residual k-means leave is nearly noise, and draws of it are heard as such."
    num_plain: int = 1
    "So many seeds train a coarse stage as in the paper, too: no common axis of time, no noise, rows drawn at random."
    num_items: int = 40
    "Sentences of each split that are spoken again."
    num_iteration_items: int = 30
    "Sentences that SoundStorm speaks with each number of iterations."
    iterations: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    num_long: int = 3
    "Speakers of each split who speak for long."
    long_seconds: float = 30.0
    dialogue_steps: int = 150
    "In which SoundStorm learns, from where it stands, to tell two speakers apart."
    dialogue_share: float = 0.7
    "Of the utterances, that are then turns of dialogues."
    dialogue_frames: int = 450
    "Longest window of a dialogue: two prompts and four sentences."
    num_dialogue_seeds: int = 3
    "So many seeds learn and speak dialogues."
    num_dialogues: int = 3
    "Dialogues of each split."
    num_windowed: int = 1
    "Speakers of each split who speak for long in windows and in one pass."
    num_streamed: int = 4
    "Speakers of each split whose speech is streamed."
    stream_seconds: float = 6.0
    "Of their sentences, end to end."
    num_edits: int = 20
    "Sentences in which a span is said anew."
    num_converted: int = 10
    "Sentences of each split that are said in another's voice."
    speed_seconds: float = 10.0
    "Length of what is timed, after a prompt."
    speed_rounds: int = 5
    num_pairs: int = 100
    "Minimal pairs of sentences."
    language: LanguageBudget = field(default_factory=LanguageBudget)
    "AudioLM's first stage, and the phones in tokens."

    def quickstart_config(self) -> QuickstartConfig:
        """Return the quickstart's config with the overrides."""
        return load_config(QuickstartConfig, CONFIG, self.quickstart)

    def soundstorm(self, seed: int) -> SoundStormStageConfig:
        """Return SoundStorm's run: the quickstart's sizes, but masked and decoded level by level as in the paper."""
        config = self.quickstart_config().acoustic
        return replace(
            config,
            at_once=False,
            trunk=replace(config.trunk, width=self.width, num_layers=self.num_layers),
            batches=replace(config.batches, first_level_share=0.6, all_masked_share=0.3),
            loop=replace(config.loop, steps=self.soundstorm_steps, warmup_steps=min(20, self.soundstorm_steps // 2)),
            seed=seed,
        )

    def dialogues(self, seed: int, start_from: Path) -> SoundStormStageConfig:
        """Return the run in which SoundStorm goes on with dialogues."""
        config = self.soundstorm(seed)
        steps = self.dialogue_steps
        return replace(
            config,
            num_speakers=2,
            start_from=str(start_from),
            max_frames=self.dialogue_frames,
            batches=replace(config.batches, dialogues=DialogueConfig(share=self.dialogue_share)),
            loop=replace(config.loop, steps=steps, warmup_steps=min(20, steps // 2)),
        )

    def audiolm(self, seed: int, frames_per_condition: int) -> AudioLMTrainConfig:
        """Return the run of AudioLM's coarse and fine stages, without removal of repeats, as SoundStorm's baseline."""
        num_levels = self.quickstart_config().codec.num_codebooks
        num_fine = num_levels - self.num_coarse
        return AudioLMTrainConfig(
            num_codebooks=num_levels,
            num_coarse=self.num_coarse,
            coarse=self._stage(
                self.coarse_steps, self.window_seconds, frames_per_condition * self.num_coarse, self.coarse_temperature
            ),
            fine=self._stage(self.fine_steps, 3.0, num_fine / self.num_coarse, self.fine_temperature),
            prompt_seconds=PROMPT_SECONDS,
            row_init="centroid",
            join_speakers=True,
            seed=seed,
        )

    def plain_coarse(self, seed: int) -> AudioLMTrainConfig:
        """Return the run of a coarse stage without our additions, for as many steps."""
        coarse = self._stage(self.coarse_steps, self.window_seconds, None, self.coarse_temperature)
        return AudioLMTrainConfig(
            num_codebooks=self.num_coarse,
            num_coarse=self.num_coarse,
            coarse=replace(coarse, code_noise=0.0),
            prompt_seconds=PROMPT_SECONDS,
            join_speakers=True,
            seed=seed,
        )

    def _stage(
        self, steps: int, window_seconds: float, prefix_stride: float | None, temperature: float
    ) -> StageTrainConfig:
        decoder = DecoderConfig(
            width=self.width, num_layers=self.num_layers, num_heads=4, feed_forward=8 * self.width // 3 // 8 * 8
        )
        return StageTrainConfig(
            lm=StageLMConfig(
                decoder=decoder,
                window_seconds=window_seconds,
                dedup=False,
                prefix_stride=None if prefix_stride is None else float(prefix_stride),
                temperature=temperature,
            ),
            loop=LoopConfig(
                steps=steps,
                warmup_steps=min(20, steps // 2),
                optimizer=OptimizerConfig(kind="muon", learning_rate=self.learning_rate),
                bf16=True,
                progress=False,
            ),
            batch_size=self.batch_size,
            code_noise=self.code_noise,
        )


TINY = Budget(
    quickstart=(
        "corpus.num_sentences=24", "corpus.num_validation=1", "corpus.num_test=8", "corpus.num_speakers=2",
        "encoder.loop.steps=3", "encoder.loop.warmup_steps=1", "encoder.trunk.width=32", "encoder.trunk.num_layers=4",
        "semantic.codebook_size=32", "codec.codebook_size=16", "acoustic.max_frames=100",
    ),
    soundstorm_steps=2, dialogue_steps=2, width=32, num_layers=1, coarse_steps=2, fine_steps=2, batch_size=2,
    num_items=2, num_iteration_items=2, iterations=(1, 16, 32), num_long=1, long_seconds=7.0, speed_seconds=1.0,
    speed_rounds=2, num_pairs=2, num_dialogues=1, num_windowed=1,
    num_streamed=1, num_edits=2, num_converted=2,
    language=LanguageBudget(
        steps=2, batch_size=2, joined_seconds=1.0, num_joinings=1, num_pairs=2, num_continuations=2,
        continued_seconds=1.0, num_unconditional=2, num_phone_sentences=4, triples_per_cell=1,
    ),
)  # fmt: skip
"To see that it runs."


@dataclass(frozen=True)
class Folders:
    """Where everything lies."""

    root: Path
    given_quickstart: Path | None = None
    "A run of the quickstart whose corpus, semantic tokenizer and tokens are used."

    @property
    def quickstart(self) -> Path:
        """Corpus, encoder, semantic tokenizer and tokens."""
        return self.given_quickstart or self.root / "quickstart"

    @property
    def corpus(self) -> Path:
        """The prepared corpus."""
        return self.quickstart / "corpus"

    @property
    def semantic(self) -> Path:
        """The semantic tokenizer."""
        return self.quickstart / "semantic_tokenizer"

    @property
    def tokens(self) -> Path:
        """The corpus as semantic codes."""
        return self.quickstart / "tokens"

    def codec(self, seed: int) -> Path:
        """The codec of a seed."""
        return self.root / "models" / str(seed) / "codec"

    def soundstorm(self, seed: int) -> Path:
        """SoundStorm of a seed."""
        return self.root / "models" / str(seed) / "soundstorm"

    def dialogues(self, seed: int) -> Path:
        """SoundStorm of a seed, trained further on dialogues."""
        return self.root / "models" / str(seed) / "dialogues"

    def audiolm(self, seed: int) -> Path:
        """AudioLM's coarse and fine stages of a seed."""
        return self.root / "models" / str(seed) / "audiolm"

    def semantic_stage(self, seed: int) -> Path:
        """AudioLM's semantic stage of a seed."""
        return self.root / "models" / str(seed) / "semantic"

    def plain(self, seed: int) -> Path:
        """A coarse stage of a seed without our additions."""
        return self.root / "models" / str(seed) / "plain_coarse"

    def result(self, name: str, seed: int) -> Path:
        """What a measurement found."""
        return self.root / "results" / f"{name}-{seed}.json"
