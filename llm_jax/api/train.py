"""`llm_jax.train`: the command's run, asked for by a program, which may hand in parts of its own."""

from collections.abc import Sequence
from pathlib import Path

from llm_jax.api.run import Run
from llm_jax.base.terminal import say
from llm_jax.config import load
from llm_jax.config.run import Config
from llm_jax.runs.inherited import INHERITED
from llm_jax.runs.own_parts import Batches, Callback, Loss, OwnParts, Program
from llm_jax.runs.train import run
from llm_jax.training.loop import claim_device
from llm_jax.training.optimizer import Optimizer


def train(
    config: Config,
    *,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    batches: Batches | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train a model, or go on with the run in `config.train.run` where it was stopped, to its last step.

    >>> config = llm_jax.Config(
    ...     model=llm_jax.ModelConfig(d_model=16, num_layers=1, num_heads=2, context_length=8),
    ...     train=llm_jax.TrainConfig(run=Path("runs/first"), steps=4),
    ... )
    >>> run = llm_jax.train(config)
    Data: sales_handbook (cached in prepared/)...Saved in runs/first. Generate more: ...
    >>> text = run.model.generate("The salesperson", max_new_tokens=8, temperature=0.8)

    Parts of your own take the place of what the configuration describes. A run with some is to the bit the
    run that was never stopped, too, as long as each call hands in the same ones: they are not saved, so
    checkpoints record their names alone, and the command `train` refuses to go on with such a run. All the
    rest (text, tokenizer, evaluation on what is held out, checkpoints, record) stays as configured.

    Args:
        config: the run. A configuration file is read by `read_config`.
        loss: (params, config, batch, dropout_key) -> (sum, weight), two scalars that add up over the parts of
            a batch, of which the step lowers sum / weight; a pure function of JAX. `config` is the
            `ModelConfig`, and without the key there is no dropout. With train.accumulation_steps it gets some
            rows at a time.
        optimizer: of optax, whose schedule is its own; of [optim] clip_norm and ema_decay stay.
        batches: index, from 0 on -> `Batch` of [batch_size, context_length] arrays; a pure function, so that
            a run that goes on draws the same. Ids are the tokenizer's.
        callbacks: each is called with the step and the numbers of every line of metrics.jsonl, in a thread of
            its own: one that fails, or does not keep up, is a warning, and the run goes on.

    Raises:
        UserError: a setting or a part is not as it must be, or the directory holds another run.
        DataError: the text, or an id of a batch, cannot be used.
        CheckpointError: the directory cannot be written, or its run cannot be read.
        InterruptedAndSaved: Ctrl-C, or another signal, came; what was done is saved, and the same call goes
            on with it.
    """
    claim_device(say)
    config = load.config_from_dict(load.to_dict(config), "config")  # which looks at every value
    own = OwnParts(loss, optimizer, batches)
    run(config, lambda *_: None, program=Program(True, own, tuple(callbacks)))
    return Run(config.train.run)


def read_config(*files: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration in TOML files, of which a later one wins.

    >>> llm_jax.read_config(overrides=["--train.steps=100"]).train.steps
    100

    Args:
        *files: none means the defaults.
        overrides: words as of the command line, which win over all files.

    Raises:
        UserError: a file, key, type or value is not as it must be, or has no effect; the message names it.
    """
    return load.read_config([Path(file) for file in files], overrides, INHERITED)
