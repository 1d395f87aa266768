"""One step's folder: written, read and verified. The only place that touches orbax.

Each part of the state ("params", "opt_state" ...) is a checkpointable of its own, beside a manifest: what the
checkpoint is (`about`) and the shape, type and checksum of every leaf. Orbax does not check the bytes of
arrays, so nothing is handed out before its checksums are computed anew and agree.
"""

import gc
import hashlib
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from llm_jax.errors import CheckpointError
from llm_jax.model.checks import check_types
from llm_jax.training.integrity import checksums, describe, leaf_names

State = dict[str, Any]
_LEAST_IN_FLIGHT = 64 << 20  # bytes
TEMPORARY = ".orbax-checkpoint-tmp"  # in the names of folders that orbax has not committed


class Damaged(Exception):
    """A step that cannot be trusted; the message says why."""


def write_step(path: Path, state: State, about: Mapping[str, Any]) -> None:
    """Writes a step so that it outlives a power cut: committed by orbax's rename, then synced.

    Raises whatever orbax and the file system raise.
    """
    leaves = {part: _describe_with_sums(tree) for part, tree in state.items()}
    with _quiet(), _bounded(_largest(leaves)):
        ocp.save_checkpointables(str(path), state | {"manifest": _seal(about, leaves)})
    _sync_tree(path)


def load_step(path: Path, abstract_state: State) -> tuple[State, dict[str, Any]]:
    """The parts of a step that are asked for, verified, and what the step says of itself.

    Args:
        path: a step's folder.
        abstract_state: shape structs by part, with shardings where arrays shall not go to the default device.

    Raises:
        Damaged: it cannot be read, or a checksum is wrong.
        CheckpointError: it is sound and holds other shapes, types or names.
    """
    manifest = open_manifest(path)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def placed(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or device
        )

    for part, tree in abstract_state.items():
        _require_same(path, part, manifest["leaves"].get(part, {}), describe(tree))
    state = _orbax(path, jax.tree.map(placed, abstract_state), _largest(manifest["leaves"]))
    _require_sums(state, manifest["leaves"])
    return state, manifest["about"]


def load_params(path: Path, part: str, abstract_params: Any) -> tuple[Any, dict[str, Any]]:
    """One part of a step, verified and then converted to the types that are asked for, from whatever floats
    were saved; and what the step says of itself.

    Raises: as `load_step`, but for types; UserError where JAX would narrow the saved ones.
    """
    saved = open_manifest(path)["leaves"].get(part, {})
    check_types((kind for kind, *_ in saved.values()), f"an array in {path}")
    kinds, structure = jax.tree.flatten(abstract_params)
    as_saved = [
        kind.update(dtype=saved[name][0]) if name in saved else kind
        for name, kind in zip(leaf_names(abstract_params), kinds, strict=True)
    ]
    state, about = load_step(path, {part: jax.tree.unflatten(structure, as_saved)})
    return jax.tree.map(lambda leaf, kind: leaf.astype(kind.dtype), state[part], abstract_params), about


def _require_sums(state: State, leaves: dict[str, dict[str, list]]) -> None:
    for part, tree in state.items():
        for name, sums in checksums(tree).items():
            if sums != leaves[part].get(name, [None, None])[2:]:
                raise Damaged(f"{part}/{name} does not have its checksum")


def _require_same(path: Path, part: str, got: dict[str, list], wanted: dict[str, list]) -> None:
    faults = [f"{part}/{name} is missing" for name in wanted if name not in got]
    faults += [f"{part}/{name} is not asked for" for name in got if name not in wanted]
    faults += [
        f"{part}/{name} is {got[name][0]} {got[name][1]}, must be {kind[0]} {kind[1]}"
        for name, kind in wanted.items()
        if name in got and got[name][:2] != kind
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        what = "another model or optimizer"
        if {name: shape for name, (_, shape, *_) in got.items()} == {
            name: kind[1] for name, kind in wanted.items()
        }:
            what = "what training keeps in another type; train.init_from starts a new run from its parameters"
        raise CheckpointError(f"{path} holds {what}: {'; '.join(faults[:3])}{more}")


def _describe_with_sums(tree: Any) -> dict[str, list]:
    sums = checksums(tree)
    return {name: [*kind, *sums[name]] for name, kind in describe(tree).items()}


def _seal(about: Mapping[str, Any], leaves: dict[str, Any]) -> dict[str, str]:
    text = json.dumps({"about": dict(about), "leaves": leaves})
    return {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def load_everything(path: Path) -> State:
    """All parts of a step as the nested arrays that were saved.

    Raises:
        Damaged: they cannot be trusted.
        UserError: JAX would narrow them.
    """
    leaves = open_manifest(path)["leaves"]
    check_types((kind for part in leaves.values() for kind, *_ in part.values()), f"an array in {path}")
    state = _orbax(path, dict.fromkeys(leaves), _largest(leaves))
    _require_sums(state, leaves)
    return state


def leaves_digest(path: Path, part: str) -> str:
    """SHA-256 over names, shapes, types and checksums of a part's leaves, as the manifest has them."""
    leaves = open_manifest(path)["leaves"][part]
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()


def open_manifest(path: Path) -> dict[str, Any]:
    """A step's "about" and "leaves". Damaged when it cannot be trusted."""
    sealed = _orbax(path, {"manifest": None})["manifest"]
    try:
        text = sealed["text"]
        if hashlib.sha256(text.encode()).hexdigest() != sealed["sha256"]:
            raise Damaged("its manifest does not have its checksum")
        return json.loads(text)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Damaged(f"its manifest cannot be read ({error})") from None


def _orbax(path: Path, parts: dict[str, Any], largest: int = 0) -> dict[str, Any]:
    with _quiet(), _bounded(largest):
        try:
            return ocp.load_checkpointables(str(path), parts)
        except Exception as error:  # noqa: BLE001 - damage surfaces as whatever the damaged reader raises
            cause = error.__cause__ or error
            reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:200]
        # Reads that were given up complain when they are collected: here, and not later in the user's sight.
        del cause
        gc.collect()
    raise Damaged(reason)


def _sync_tree(path: Path) -> None:
    """Makes a committed step outlive a power cut: orbax syncs its arrays, not its metadata nor the rename."""
    for folder, _, files in os.walk(path):
        for name in [folder, *(os.path.join(folder, file) for file in files)]:
            _sync(name)
    _sync(path.parent)


def _sync(name: str | Path) -> None:
    descriptor = os.open(name, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _largest(leaves: dict[str, dict[str, list]]) -> int:
    """Bytes of the largest leaf that a manifest lists."""
    return max(
        jnp.dtype(kind).itemsize * math.prod(shape)
        for part in leaves.values()
        for kind, shape, *_ in part.values()
    )


def _bounded(largest: int) -> ocp.Context:
    """Orbax holds no more than the largest leaf, or a little, beside the state itself."""
    most = max(largest + 1, _LEAST_IN_FLIGHT)
    return ocp.Context(
        memory_options=ocp.options.MemoryOptions(
            write_concurrent_bytes=most, read_concurrent_bytes=most, transfer_concurrent_bytes=most
        )
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps orbax's running commentary out of the user's sight; what matters comes back as errors."""
    disabled, hooks = logging.root.manager.disable, (sys.excepthook, sys.unraisablehook)
    logging.disable(logging.CRITICAL)
    sys.excepthook = sys.unraisablehook = lambda *_: None  # for threads and coroutines that were given up
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        sys.excepthook, sys.unraisablehook = hooks
