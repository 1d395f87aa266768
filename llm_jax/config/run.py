"""Configuration: the schema as frozen dataclasses; `settings` reads values into it.

The string below a field is its documentation, which `--help` shows; rules are checked on construction.
"""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from llm_jax.config.cleaning import CleaningConfig
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.lora import LoraConfig
from llm_jax.config.model import ModelConfig
from llm_jax.config.rules import Seed, Whole, at_least, fractions, require
from llm_jax.config.task import TaskConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where text comes from and how it becomes batches."""

    corpus: str = "sales_handbook"
    """A corpus name (see `llm_jax.prepare --help`), the path of a file or folder, or - for standard input."""
    format: Literal["auto", "text", "jsonl", "csv", "tsv", "parquet"] = "auto"
    """What the corpus is; auto: what the name's end says (gzip too), text where it says nothing."""
    text_column: str = ""
    """Column (field) of JSONL, CSV, TSV or Parquet that has the text; found where it is plain which."""
    text_limit_mb: Whole = 256
    """Megabytes of text taken from records or standard input; memory needed: about 12 times as many."""
    document_separator: Literal["auto", "token", "newline"] = "auto"
    """Between documents: end-of-text token or line end; auto: the token, between records, if there is one."""
    tokenizer: Literal["cl100k_base", "gpt2", "o200k_base", "bytes", "characters", "bpe", "inherited"] = (
        "cl100k_base"
    )
    """Tokenizer; bpe is trained on the training split, inherited is that of train.init_from's model."""
    bpe_vocab_size: Whole = 4096
    """Entries of the vocabulary when the tokenizer is bpe."""
    compact_vocab: bool = True
    """Keep only the ids used in the training split, plus 256 bytes so that any text still encodes."""
    compact_min_count: Whole = 3
    """Ids used fewer times than this in training are rare."""
    rare_ids: Literal["spell", "share"] = "spell"
    """Rare ids are spelt with the others, or all kept, at the end, where they share one row of the model."""
    validation_fraction: float = 0.2
    """Share of the tokens, at the end of the text, that is held out."""
    errors: Literal["strict", "replace"] = "strict"
    """Bytes that are not UTF-8: refuse the file, or put U+FFFD in their place."""
    clean: CleaningConfig = CleaningConfig()
    """What is done to the text first."""
    prepared: Path = Path("prepared")
    """Folder of token stores and downloads."""

    @property
    def downloads(self) -> Path:
        """Folder of downloaded corpora."""
        return self.prepared / "downloads"

    def __post_init__(self) -> None:
        share, own = self.validation_fraction, self.tokenizer != "inherited"
        fixed = ("bpe_vocab_size", "compact_min_count", "rare_ids")
        require(
            at_least(self, 1, "compact_min_count", "text_limit_mb")
            | at_least(self, 257, "bpe_vocab_size")
            | {
                f"{name} must be left out where the tokenizer is inherited": own
                or getattr(self, name) == DataConfig.__dataclass_fields__[name].default
                for name in fixed
            }
            | {
                "compact_vocab must be false where the tokenizer is inherited": own or not self.compact_vocab,
                f"validation_fraction ({share}) must be above 0 and below 1": 0 < share < 1,
                "corpus must not be empty": bool(self.corpus.strip()),
                "corpus and prepared must not have a zero byte": "\0" not in f"{self.corpus}{self.prepared}",
            }
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer and its schedule; the defaults are those of torch's AdamW."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw; or muon for the blocks' kernels, at AdamW's scale, and adamw for the rest."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay, multiplied by the learning rate."""
    decay: Literal["all", "matrices"] = "all"
    """Which parameters decay: every one (torch's default), or those with two or more dimensions a layer."""
    clip_norm: float = 0.0
    """Largest global norm of the gradient; 0 does not clip."""
    schedule: Literal["constant", "cosine", "wsd"] = "constant"
    """Learning rate after the warm-up; wsd stays, then falls in a straight line."""
    warmup_steps: Whole = 0
    """Steps over which the learning rate rises, from 1 / (warmup_steps + 1) of the peak in the first one."""
    decay_fraction: float = 0.2
    """Share of all steps, at the end, in which wsd falls: at least one, at most those after the warm-up."""
    final_fraction: float = 0.0
    """Learning rate of the last step, as a share of the peak (cosine and wsd)."""
    ema_decay: float = 0.0
    """Decay of the moving average of the parameters that evaluation uses; 0 keeps none."""
    frozen: str = ""
    """Parameters that stay as they are: paths, divided by commas, with * for anything, such as blocks/*."""
    lora: LoraConfig = LoraConfig()
    """Low-rank adapters, which are trained in place of the parameters."""

    def __post_init__(self) -> None:
        require(
            at_least(self, 0, "weight_decay", "clip_norm", "warmup_steps")
            | fractions(self, "beta1", "beta2", "ema_decay")
            | {
                f"learning_rate ({self.learning_rate}) must be positive": 0 < self.learning_rate < math.inf,
                f"eps ({self.eps}) must be positive": 0 < self.eps < math.inf,
                f"decay_fraction ({self.decay_fraction}) must be from 0 to 1": 0 <= self.decay_fraction <= 1,
                f"final_fraction ({self.final_fraction}) must be from 0 to 1": 0 <= self.final_fraction <= 1,
            }
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The run: how long, how often, and where it is kept."""

    run: Path = Path("runs/tutorial")
    """Run directory: checkpoints, metrics, configuration, samples."""
    init_from: str = ""
    """Directory of a model to start from, of a run its best step; it brings [model] and tokenizer."""
    seed: Seed = 1337
    """Origin of all randomness: initial weights, data order, dropout, samples."""
    steps: Whole = 5000
    """Optimizer steps."""
    order: Literal["random", "permutation"] = "random"
    """random: crops at random positions, as in the tutorial; permutation: every window once an epoch."""
    batch_size: Whole = 4
    """Sequences per optimizer step."""
    accumulation_steps: Whole = 1
    """Parts into which a batch is cut to save memory; same result. router_balance adds a forward pass."""
    steps_per_dispatch: Whole = 10
    """Optimizer steps in one call of the compiled program (same result); a signal waits for its end."""
    eval_interval: Whole = 500
    """Steps between evaluations of the whole validation split (each also prints a sample)."""
    eval_batch_size: Whole = 64
    """Sequences evaluated at once."""
    patience: Whole = 0
    """Evaluations without a lower validation loss after which the run ends; 0: all its steps are done."""
    eval_stride: Whole = 0
    """Tokens between windows of the evaluation; the rest of each is context. 0: side by side."""
    save_interval: Whole = 500
    """Steps between checkpoints."""
    save_minutes: float = 10.0
    """Minutes after which a checkpoint is due whatever save_interval says; 0: checkpoints by steps alone."""
    keep: Whole = 2
    """Latest checkpoints that are kept; the one with the best validation loss always is."""
    log_interval: Whole = 20
    """Steps between lines of metrics.jsonl."""
    tracker: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    """Where the numbers of metrics.jsonl go besides; wandb writes offline, and none uses a network."""
    prompt: str = "The salesperson"
    """Prompt of the samples."""
    sample_tokens: Whole = 100
    """Tokens of the sample at the end."""
    sampling: SamplingConfig = SamplingConfig()
    """How samples are drawn."""
    max_skipped: Whole = 20
    """Non-finite steps in a row, each without effect, before the run rolls back once, then gives up."""

    def __post_init__(self) -> None:
        size, parts = self.batch_size, max(1, self.accumulation_steps)
        require(
            at_least(self, 0, "seed", "sample_tokens", "patience", "eval_stride", "save_minutes")
            | at_least(
                self,
                1,
                *("steps", "batch_size", "accumulation_steps", "steps_per_dispatch"),
                *("eval_interval", "eval_batch_size", "save_interval", "log_interval", "max_skipped"),
            )
            | at_least(self, 2, "keep")
            | {
                f"seed ({self.seed}) must be below 2**32": self.seed < 2**32,
                f"batch_size ({size}) must be divisible by accumulation_steps ({parts})": not size % parts,
                "run and init_from must not have a zero byte": "\0" not in f"{self.run}{self.init_from}",
            }
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """All of a run's settings; the defaults are `configs/tutorial.toml`."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    task: TaskConfig = TaskConfig()

    def __post_init__(self) -> None:
        warmup, steps = self.optim.warmup_steps, self.train.steps
        stride, context = self.train.eval_stride, self.model.context_length
        tokenizer, origin = self.data.tokenizer, self.train.init_from
        require(
            {
                f"warmup_steps ({warmup}) must not exceed steps ({steps})": warmup <= steps,
                f"eval_stride ({stride}) must not exceed context_length ({context})": stride <= context,
                f"tokenizer ({tokenizer}) must be left out with init_from, which brings its own": not origin
                or tokenizer == "inherited",
                "tokenizer = inherited needs train.init_from, a model to start from": bool(origin)
                or tokenizer != "inherited",
            }
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovedConfig:
    """Where the text of a run is now, if it is not where it was."""

    corpus: str = ""
    """The name or path of the text that the run was trained on, where its tokens are not to be found."""
    prepared: Path | None = None
    """Folder of token stores, in place of the run's own."""
