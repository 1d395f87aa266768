"""Our program as the golden comparison asks for it, and what `verify parity` says of a golden file."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from llm_jax.base.batch import Batch
from llm_jax.base.errors import CheckpointError, DataError
from llm_jax.base.terminal import console, say, say_result
from llm_jax.base.tree import Tree
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.inference.decode import generate_tokens
from llm_jax.inference.request import Generation, decoding_layout
from llm_jax.interop.pytorch.tutorial import export_state_dict, import_params, infer_config, name_of_relu_bias
from llm_jax.model.decoder import forward
from llm_jax.proofs.golden import FLOAT32, FOR_INFORMATION, Row, compare, on_a_branch
from llm_jax.proofs.golden_file import Arrays, group, read_golden
from llm_jax.proofs.kinks import Followed, Kink, Program
from llm_jax.training.losses import next_token_loss
from llm_jax.training.state import state_from
from llm_jax.training.step import train_step


class Judged(NamedTuple):
    """A golden file beside our program in one precision."""

    rows: list[Row]
    run: Followed


def prove(path: Path) -> bool:
    """Return what `verify parity` does: a table for each precision, a line of JSON, and whether all bounds
    hold.

    Raises:
        DataError: the file is not a golden file of the tutorial.
    """
    golden = read_golden(path)
    _require_tutorial(path, golden)
    judged = judge(golden, say)
    facts = {}
    for dtype, (rows, run) in judged.items():
        console(width=130).print(_table(f"{dtype} beside torch float32", rows))
        for line in _sentences(run):
            say(line)
        facts[dtype] = [row._asdict() for row in rows]
        facts[f"{dtype}_run"] = {
            "kinks": [kink._asdict() for kink in run.kinks],
            "kinks_tried": run.tried,
            "losses_as_run": run.as_run,
            "leaves_at": run.leaves_at,
        }
    say_result({"holds": holds(judged), **facts})
    return holds(judged)


def judge(golden: Arrays, report: Callable[[str], None]) -> dict[str, Judged]:
    """Return a sound golden file by precision; `report` gets a line before long work.

    Float32 is held to bounds. Float64 is for information, unless rounding chose the branch on which float32
    holds.
    """
    judged, bounds, search = {}, FLOAT32, True
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            program = tutorial_program(group(golden, "init"), int(golden["hyper"][4]), dtype)
            judged[dtype] = Judged(*compare(golden, program, bounds, report, search=search))
        run = judged[dtype].run
        bounds = on_a_branch(golden) if run.kinks else FOR_INFORMATION
        search = run.leaves_at is None or bool(run.kinks)
    return judged


def holds(judged: dict[str, Judged]) -> bool:
    """Return whether every bound is kept."""
    return all(row.holds for rows, _ in judged.values() for row in rows)


def _require_tutorial(path: Path, golden: Arrays) -> None:
    """Raises DataError where the weights are not the tutorial's, of the sizes that "hyper" says."""
    *sizes, context_length, _ = map(int, golden["hyper"])
    for prefix in ("init", "final"):
        try:
            model = infer_config(group(golden, prefix), context_length)
            import_params(group(golden, prefix), model)
        except CheckpointError as error:
            raise DataError(f"{path} must hold the weights {prefix}/NAME of the tutorial: {error}") from None
        if (got := [model.vocab_size, model.d_model, model.num_layers, model.num_heads]) != sizes:
            raise DataError(
                f"{path} has hyper [vocabulary, d_model, layers, heads, ...] of {sizes}, but its weights "
                f"{prefix}/NAME are those of {got}"
            )


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table("quantity", "largest absolute", "relative", "bound", "holds", title=title)
    for row in rows:
        figures = (f"{row.absolute:.2e}", f"{row.relative:.2e}")
        table.add_row(row.quantity, *figures, row.bound, "yes" if row.holds else "NO")
    return table


def _sentences(run: Followed) -> Iterator[str]:
    """What is to be said of losses that left the bound as run. Steps, layers and so on count from 0."""
    if run.leaves_at is None:
        return
    for kink in run.kinks:
        yield (
            f"losses: rounding decides at step {kink.step} whether unit {kink.unit} of layer {kink.layer} is "
            f"on (row {kink.row}, token {kink.token}): its ReLU's input is {kink.input:.1e}, {kink.ulps:.1f} "
            f"units in the last place of its terms, and a gradient jumps by {kink.jump:.0e} of its largest."
        )
    as_run = f"up to {run.as_run:.1e} off as run, beyond {run.bound:.2g} from step {run.leaves_at} on"
    if run.kinks:
        sides = " and ".join("on" if kink.on else "off" for kink in run.kinks)
        yield f"losses: within {run.bound:.2g} on the branch where it is {sides}; {as_run}."
    else:
        tried = f"none of {run.tried} sides that rounding could have changed explains it"
        yield f"losses: {as_run}; {tried}."


def tutorial_program(weights: Arrays, context_length: int, dtype: str) -> Program:
    """Return the program for models shaped like these weights; "float64" needs `jax.enable_x64`."""
    model = dataclasses.replace(
        infer_config(weights, context_length), dropout=0.0, dtype=dtype, param_dtype=dtype
    )
    read = partial(_import, model, dtype)

    def logits(weights: Arrays, tokens: np.ndarray) -> np.ndarray:
        return np.asarray(_logits(read(weights), model, tokens))

    def loss_and_gradients(weights: Arrays, tokens: np.ndarray) -> tuple[float, Arrays]:
        loss, gradients = _loss_and_gradients(read(weights), model, as_batch(tokens))
        named = export_state_dict(gradients, model)
        return float(loss), {name: g for name, g in named.items() if not name.endswith("tril")}

    def relu_inputs(weights: Arrays, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return jax.device_get(_relu_inputs(read(weights), model, tokens))

    def nudged(weights: Arrays, kink: Kink) -> Arrays:
        name = name_of_relu_bias(kink.layer)
        bias = weights[name].astype(dtype)
        bias[kink.unit] += kink.nudge
        return {**weights, name: bias}

    def train(
        weights: Arrays, batches: np.ndarray, rate: float, kinks: Sequence[Kink]
    ) -> Iterator[tuple[float, Callable[[], Arrays]]]:
        # The tutorial's schedule is constant: its program is the same for every number of steps.
        train = TrainConfig(steps=1, batch_size=batches.shape[1], steps_per_dispatch=1)
        config = Config(model=model, optim=OptimConfig(learning_rate=rate), train=train)
        state = state_from(config, read(weights))
        # Copies, since a step writes into the memory of the state before it.
        after = lambda: export_state_dict(jax.tree.map(np.array, state["params"]), model)  # noqa: E731
        for step, tokens in enumerate(batches):
            for kink in kinks:
                if kink.step == step:
                    state["params"] = read(nudged(after(), kink))
            state, metrics = train_step(config, state, as_batch(tokens))
            yield float(metrics["loss_sum"]) / float(metrics["weight"]), after

    def greedy(weights: Arrays, prompt: np.ndarray, length: int) -> np.ndarray:
        start = prompt.ravel().tolist()
        request = Generation(max_new_tokens=length - len(start), sampling=SamplingConfig(temperature=0))
        rows = generate_tokens(decoding_layout(read(weights), model), [start], request)
        return np.array(start + [int(row[0]) for row in rows])

    return Program(logits, loss_and_gradients, relu_inputs, nudged, train, greedy)


@partial(jax.jit, static_argnums=1)
def _logits(params: Tree, model: ModelConfig, tokens_BT: jax.Array) -> jax.Array:
    return forward(params, model, tokens_BT)[0]


@partial(jax.jit, static_argnums=1)
def _loss_and_gradients(params: Tree, model: ModelConfig, batch: Batch) -> tuple[jax.Array, Tree]:
    def mean(params: Tree) -> jax.Array:
        total, weight = next_token_loss(params, model, batch, None)
        return total / weight

    return jax.value_and_grad(mean)(params)


@partial(jax.jit, static_argnums=1)
def _relu_inputs(params: Tree, model: ModelConfig, tokens_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What goes into each MLP's ReLU, and the sum of the sizes of its terms, [L, B, T, F] each."""
    blocks = forward(params, model, tokens_BT)[2].blocks
    kernel_LDF, bias_LF = (jnp.abs(params["blocks"]["mlp_up"][name]) for name in ("kernel", "bias"))
    sizes_LBTF = jnp.einsum("LBTD,LDF->LBTF", jnp.abs(blocks.mlp_input), kernel_LDF)
    return blocks.mlp_hidden, sizes_LBTF + bias_LF[:, None, None]


def as_batch(tokens: np.ndarray) -> Batch:
    """Return windows [B, T + 1] as inputs, targets and weights of one."""
    tokens = tokens.astype(np.int32)
    return Batch(tokens[:, :-1], tokens[:, 1:], np.ones(tokens[:, 1:].shape, np.float32))


def _import(model: ModelConfig, dtype: str, weights: Arrays) -> Tree:
    return jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, dtype), import_params(weights, model))
