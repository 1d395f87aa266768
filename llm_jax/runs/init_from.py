"""What a run takes over from the model that it starts from (`train.init_from`): settings, tokenizer, weights.

A new run reads it off that model's directory. Its checkpoints then record it, so that the run goes on, and
says what it came from, without that directory.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from llm_jax.base.devices import first_device
from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.base.tree import State, Tree, flatten
from llm_jax.checkpoints.reader import read_about, read_digest, read_params
from llm_jax.checkpoints.step_files import checkpoint_directory, saved_steps
from llm_jax.config.changes import sequences_before
from llm_jax.config.load import config_from_dict, to_dict
from llm_jax.config.model import NOT_COMPUTED, ModelConfig
from llm_jax.config.run import Config
from llm_jax.model import heads
from llm_jax.model.decoder import init_params
from llm_jax.model.dropout import KEY_KIND
from llm_jax.model.heads import FACTORS, LABEL_HEAD
from llm_jax.model.lora import merged, with_adapters
from llm_jax.tasks.saved import evaluated_part
from llm_jax.training.precision import with_masters
from llm_jax.training.state import Setup, abstract_state, init_state, key_for, state_from

# A run's own choice; all other settings of the model are what its weights mean.
_FREE = NOT_COMPUTED | {"context_length", "num_labels", "factor_values", "factor_slots"}


class Origin(NamedTuple):
    """A model as another run starts from it."""

    name: str  # of its directory, without the folders above
    step: int
    part: str  # "params", or "ema" where its evaluation uses the average
    digest: str  # SHA-256 over shapes, types and checksums of that part
    model: ModelConfig
    tokenizer: Mapping[str, Any]  # its description
    chat: Any  # how messages become text for it; None where nothing is known
    sequences: int | None = None  # of its order of batches, that are left out; None until that is settled

    def about(self) -> dict[str, Any]:
        """Return what checkpoints of the new run say of it."""
        kept = {name: getattr(self, name) for name in ("name", "step", "part", "digest", "sequences")}
        chat = {} if self.chat is None else {"chat": self.chat}
        return {"initialised_from": kept | {"model": to_dict(self.model)}, **chat}


def find_origin(init_from: str, run: Path) -> Origin:
    """Return what a run starts from, a run's best step, or started from where there is such a run already.

    Args:
        init_from: directory of the model, of a run or made by `convert import`.
        run: the run's own directory.

    Raises:
        CheckpointError: there is no model, or it is damaged.
    """
    if saved_steps(checkpoint_directory(run)) and (
        known := recorded_origin(read_about(checkpoint_directory(run)))
    ):
        return known
    directory = checkpoint_directory(Path(init_from))
    if not saved_steps(directory):
        raise CheckpointError(
            f"init_from ({init_from}) must be a run directory, or one that `convert import` made, "
            "and has no checkpoint"
        )
    about = read_about(directory, "best")
    config = config_from_dict(about["config"], f"the checkpoint in {init_from}")
    name, part = Path(init_from).resolve().name, evaluated_part(config)
    digest = read_digest(directory, part, about["step"])
    return Origin(name, about["step"], part, digest, config.model, about["tokenizer"], about.get("chat"))


def recorded_origin(about: Mapping[str, Any]) -> Origin | None:
    """Return what a checkpoint says that its run started from; None for fresh weights."""
    record = about.get("initialised_from")
    if record is None:
        return None
    model = config_from_dict({"model": record["model"]}, "the checkpoint's record of init_from").model
    of = {name: record[name] for name in ("name", "step", "part", "digest")}
    of["sequences"] = record.get("sequences") or 0  # Runs that were begun before they were left out keep all.
    return Origin(**of, model=model, tokenizer=about["tokenizer"], chat=about.get("chat"))


def sequences_drawn(init_from: str, step: int) -> tuple[int, str | None]:
    """Return how many sequences a model and what that started from were trained on, and the fingerprint of
    its data; 0 and None for one that was imported.

    Raises:
        CheckpointError: there is no such step, or it is damaged.
    """
    directory = checkpoint_directory(Path(init_from))
    about = read_about(directory, step)
    if about["data_fingerprint"] is None:
        return 0, None
    config, origin = config_from_dict(about["config"], init_from), recorded_origin(about)
    counters, _ = read_params(directory, abstract_state(config)["counters"], name="counters", step=step)
    batch, sequences = sequences_before(about.get("changes", []))
    left_out = (origin and origin.sequences) or 0
    drawn = left_out + sequences + (int(counters["batch"]) - batch) * config.train.batch_size
    return drawn, about["data_fingerprint"]


def inherited_settings(init_from: str, run: Path) -> dict[str, Any]:
    """Return the settings, by section, that a run has from there; what a user gives stands above them.

    Raises:
        CheckpointError: there is no model, or it is damaged.
    """
    model = find_origin(init_from, run).model
    return {
        "model": to_dict(model) | {"num_labels": 0, "factor_values": 0, "factor_slots": 0},
        "data": {"tokenizer": "inherited", "compact_vocab": False},
    }


def require_same_model(model: ModelConfig, origin: Origin) -> None:
    """Refuse settings under which the weights would mean something else: all but those of how a model runs,
    and a shorter context, unless each position has weights of its own.
    """
    theirs, longest = dict(flatten(to_dict(origin.model))), origin.model.context_length
    faults = [
        f"model.{path.replace('/', '.')} ({value}) must be {theirs[path]}"
        for path, value in flatten(to_dict(model))
        if path.split("/")[0] not in _FREE and value != theirs[path]
    ]
    if model.context_length > longest:
        faults.append(f"model.context_length ({model.context_length}) must not exceed {longest}")
    elif model.context_length < longest and model.positions == "learned":
        faults.append(
            f"model.context_length ({model.context_length}) must be {longest} with learned positions"
        )
    if faults:
        raise UserError(f"{'; '.join(faults)}: so it is in init_from's model ({origin.name}); leave it out")


def require_same_weights(init_from: str, origin: Origin) -> None:
    """Raise CheckpointError where a directory does not hold the weights that a run began with."""
    if read_digest(checkpoint_directory(Path(init_from)), origin.part, origin.step) != origin.digest:
        raise CheckpointError(
            f"{init_from} must hold the weights that the run began with, but step {origin.step} of it has "
            "others"
        )


def first_state(config: Config, origin: Origin | None, setup: Setup = Setup()) -> State:
    """Return the state before a run's first step, with fresh weights or with those that it starts from.

    Raises:
        UserError: JAX has no device to make them on.
        CheckpointError: `train.init_from` does not hold them, or not any more, or they are damaged.
    """
    first_device()
    if origin is None:
        return init_state(config, setup.objective, setup.optimizer)
    require_same_weights(config.train.init_from, origin)
    directory, step = checkpoint_directory(Path(config.train.init_from)), origin.step
    theirs = {name: getattr(origin.model, name) for name in ("num_labels", "factor_values", "factor_slots")}
    masters = with_masters(dataclasses.replace(config.model, **theirs))
    begin = heads.init_params if masters.num_labels else init_params
    lora = config_from_dict(read_about(directory, step)["config"], config.train.init_from).optim.lora

    def saved(key: jax.Array) -> Tree:
        params = begin(key, masters)
        return with_adapters(key, params, lora) if lora.rank else params

    wanted = jax.eval_shape(saved, jax.random.key(0, impl=KEY_KIND))
    params = merged(read_params(directory, wanted, name=origin.part, step=step)[0])
    if config.model.num_labels:  # What belongs to these labels and fields begins anew; no next token is told.
        fresh = setup.objective.init_params(key_for(config, 0), with_masters(config.model))
        inherited = {name: part for name, part in params.items() if name not in (LABEL_HEAD, FACTORS)}
        params = fresh | {name: part for name, part in inherited.items() if name in fresh}
    return state_from(config, params, setup.optimizer)
