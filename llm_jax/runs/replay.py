"""One step of a run again, as it was: a batch and its dropout are functions of (seed, step), so what made a
loss jump can be looked up afterwards, without logs. B batch, T tokens.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from llm_jax.base.batch import Batch
from llm_jax.base.devices import on_one_device
from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.base.json_lines import read_lines, scalars
from llm_jax.base.strict_json import finite
from llm_jax.base.tree import State
from llm_jax.checkpoints.reader import read_about, read_before
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.config.load import config_from_dict
from llm_jax.config.run import MovedConfig
from llm_jax.runs.data import Materials, gather_again
from llm_jax.runs.init_from import first_state
from llm_jax.runs.record import mean_loss
from llm_jax.tokenization.protocol import Tokenizer, decode
from llm_jax.tokenization.streaming import StreamDecoder
from llm_jax.training.state import Setup, abstract_state
from llm_jax.training.step import step_nats, train_step

_CONTEXT = 12  # tokens shown before a target
_RECENT = 50  # steps that a median is of, at most


class Replayed(NamedTuple):
    """A step as training did it."""

    step: int
    batch_index: int
    rollbacks: int  # how often the run had rolled back by then
    batch: Batch
    nats: np.ndarray  # [B, T] float, under the step's own dropout
    metrics: dict[str, Any]  # of `train_step`, as numbers
    earlier: list[dict[str, Any]]  # of the steps recomputed before it, oldest first

    @property
    def loss(self) -> float:
        """Mean nats per target of the batch, from the same compiled step as in training."""
        return _mean([self.metrics])

    def row_losses(self) -> list[float]:
        """Return mean nats per target of each row, [B]."""
        rows = zip(self.nats, np.asarray(self.batch.weights), strict=True)
        return [mean_loss([(float(row @ weights), float(weights.sum()))]) for row, weights in rows]


class Target(NamedTuple):
    """A token that the model had to predict, and how badly it did."""

    row: int
    position: int
    context: str
    target: str
    nats: float
    probability: float


class Comparison(NamedTuple):
    """A replayed step beside its line in metrics.jsonl; None where there is nothing to compare."""

    logged_loss: float | None
    averaged_steps: int | None  # the logged loss is the mean over so many steps, the last one this
    loss_equal: bool | None  # to the bit; None when not all of those steps were recomputed
    logged_grad_norm: float | None
    grad_norm_equal: bool | None


def open_run(
    directory: Path, step: int, report: Callable[[str], None], moved: MovedConfig = MovedConfig()
) -> Materials:
    """Return a run's configuration and data, after looking whether it has such a step.

    Args:
        directory: the run.
        step: numbered from 1.
        report: gets one line a remark.
        moved: where its text is now.

    Raises:
        CheckpointError: not a run directory, a model that was not trained here, or other data than then.
        UserError: the run has no such step.
    """
    about = read_about(checkpoint_directory(directory))
    if about["data_fingerprint"] is None:
        raise CheckpointError(f"{directory} was imported, not trained: it has no step to replay")
    if own := about.get("own_parts"):
        raise UserError(
            f"{directory} was trained with its own {', '.join(own)} through llm_jax.train, which are not "
            "saved: its steps cannot be replayed"
        )
    config = config_from_dict(about["config"], f"the checkpoint in {directory}")
    if not 1 <= step <= config.train.steps:
        raise UserError(f"step ({step}) must be from 1 to {config.train.steps}, the last step of {directory}")
    return gather_again(about, str(directory), report, moved)


def replay(
    directory: Path,
    material: Materials,
    step: int,
    before: int,
    *,
    report: Callable[[str], None],
    track: Callable[[range], Iterable[int]],
) -> Replayed:
    """Do a step again, from the newest checkpoint with `before` steps in between, or from the beginning; each
    step under the configuration that held then.

    Args:
        directory: the run.
        material: as `open_run` gives it.
        step: the n-th optimizer step, numbered from 1 as in metrics.jsonl.
        before: fewest steps to recompute before it (all, where there are fewer), to compare with.
        report: gets one line a remark.
        track: passes the steps before through, and may show how far they are.

    Raises:
        CheckpointError: the run never came to this step from that checkpoint, since it rolled back before.
    """
    checkpoints, last = checkpoint_directory(directory), max(0, step - 1 - before)
    setup = material.setup(on_one_device())
    restored = read_before(checkpoints, abstract_state(material.config, setup), last, report)
    origin = f"the checkpoint of step {restored.step}" if restored else "the beginning"
    state = restored.state if restored else _beginning(material, setup)
    first = int(state["counters"]["step"])
    report(f"recomputing {step - first} steps from {origin}")
    earlier = []
    turns = {line["step"] + 1 for line in material.history}
    then = material.at(first + 1)
    for number in track(range(first + 1, step)):
        then = material.at(number) if number in turns else then
        state, metrics = train_step(then.config, state, then.batch_at(int(state["counters"]["batch"])), setup)
        earlier.append(_numbers(metrics))
        if earlier[-1]["skipped"] > then.config.train.max_skipped:
            raise CheckpointError(
                f"the run rolled back at step {number}, so step {step} came after a checkpoint later than "
                f"{origin}; give fewer steps with --before"
            )
    counters = {name: int(count) for name, count in state["counters"].items()}
    then = material.at(step)
    batch = then.batch_at(counters["batch"])
    nats = np.asarray(
        step_nats(then.config, state, batch, setup.objective)
    )  # Before the step, which donates its state.
    _, metrics = train_step(then.config, state, batch, setup)
    return Replayed(step, counters["batch"], counters["rollbacks"], batch, nats, _numbers(metrics), earlier)


def _beginning(material: Materials, setup: Setup) -> State:
    assert setup.placement
    state = first_state(material.at(1).config, material.origin, setup)
    return jax.device_put(state, setup.placement.state)


def compare(replayed: Replayed, run: Path) -> Comparison:
    """Return the replayed step beside what training logged of it, if it did."""
    line = _logged(run, replayed.step, replayed.rollbacks)
    if line is None:
        return Comparison(None, None, None, None, None)
    count, steps = line.get("averaged_steps"), [*replayed.earlier, replayed.metrics]
    mean = _mean(steps[-count:]) if isinstance(count, int) and 0 < count <= len(steps) else None
    norm = line.get("grad_norm")
    return Comparison(
        line["train_loss"],
        count,
        None if mean is None else _same(mean, line["train_loss"]),
        norm,
        _same(replayed.metrics["grad_norm"], norm) if "grad_norm" in line else None,
    )


def hardest_targets(
    replayed: Replayed, tokenizer: Tokenizer, count: int, labels: Sequence[str] = ()
) -> list[Target]:
    """Return the targets with the most nats, hardest first; `labels` are what they stand for, if not
    tokens.
    """
    tokens, targets, weights = map(np.asarray, replayed.batch[:3])
    nats = np.where(weights > 0, np.nan_to_num(replayed.nats, nan=math.inf), -math.inf)
    found = []
    for place in np.argsort(-nats, axis=None, kind="stable")[: min(count, int(np.sum(weights > 0)))]:
        row, position = (int(number) for number in np.unravel_index(place, nats.shape))
        context = decode(tokenizer, tokens[row, max(0, position + 1 - _CONTEXT) : position + 1])
        number, value = targets[row, position], float(nats[row, position])
        target = str(labels[number]) if labels else decode(tokenizer, [number])
        found.append(Target(row, position, context, target, value, math.exp(-value)))
    return found


def row_pieces(replayed: Replayed, tokenizer: Tokenizer, row: int) -> list[tuple[str, float | None]]:
    """Return a row's text, token by token, each with its nats; the first is no target and has None. A
    character that several tokens make comes with the last of them.
    """
    decoder = StreamDecoder(tokenizer)
    if replayed.batch.begins is None:
        ids = [int(replayed.batch.tokens[row, 0]), *map(int, replayed.batch.targets[row])]
        nats = [None, *map(float, replayed.nats[row])]
    else:  # Each token's nats are then those of the label that is told there.
        told = replayed.batch.weights[row] > 0
        ids = [int(token) for token in replayed.batch.tokens[row]]
        nats = [
            float(each) if is_told else None for each, is_told in zip(replayed.nats[row], told, strict=True)
        ]
    return [(decoder.push(token), value) for token, value in zip(ids, nats, strict=True)] + [
        (decoder.finish(), nats[-1])
    ]


def beside_median(replayed: Replayed, name: str) -> dict[str, tuple[float, float | None]]:
    """Return a norm of each part and layer, and its median over the steps recomputed just before.

    Args:
        replayed: the step.
        name: "grad_norms" or "update_norms".
    """
    before = [dict(scalars(metrics[name])) for metrics in replayed.earlier[-_RECENT:]]
    found = {}
    for path, norm in scalars(replayed.metrics[name]):
        values = [norms[path] for norms in before if math.isfinite(norms[path])]
        found[path] = (norm, float(np.median(values)) if values else None)
    return found


def summary(replayed: Replayed, compared: Comparison, targets: Sequence[Target]) -> dict[str, Any]:
    """Return all that was found, as JSON values; a number that is not finite is None."""
    names = ("learning_rate", "grad_norm", "update_norm", "grad_norms", "update_norms")
    values = {
        "step": replayed.step,
        "batch": replayed.batch_index,
        "recomputed_before": len(replayed.earlier),
        "loss": replayed.loss,
        "row_losses": replayed.row_losses(),
        "skipped": replayed.metrics["skipped"] > 0,
        **{name: replayed.metrics[name] for name in names},
        **compared._asdict(),
        "hardest": [target._asdict() for target in targets],
    }
    return finite(values)


def _mean(steps: Sequence[dict[str, Any]]) -> float:
    return mean_loss([(metrics["loss_sum"], metrics["weight"]) for metrics in steps])


def _same(value: float, logged: float | None) -> bool:
    """Whether two numbers are the same bits; what was not finite is logged as None."""
    return value == logged if logged is not None else not math.isfinite(value)


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    return jax.tree.map(lambda array: array.tolist(), jax.device_get(metrics))


def _logged(run: Path, step: int, rollbacks: int) -> dict[str, Any] | None:
    """The line of training's metrics for a step. A run that rolled back has written some steps twice: its
    lines start anew, once for each roll-back.
    """
    attempts: list[dict[int, dict[str, Any]]] = [{}]
    for line in read_lines(run / "metrics.jsonl"):
        if "train_loss" in line:
            if line["step"] <= max(attempts[-1], default=0):
                attempts.append({})
            attempts[-1][line["step"]] = line
    return attempts[rollbacks].get(step) if rollbacks < len(attempts) else None
