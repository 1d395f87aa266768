"""One step's folder: written, read and verified. The only place that touches orbax.

Each part of the state ("params", "opt_state" ...) is a checkpointable of its own, beside a manifest
(`step_files`): what the checkpoint is (`about`), the shape, type and checksum of every leaf, and the checksum
of every file. Orbax does not check the bytes of arrays, so nothing is handed out before its checksums are
computed anew and agree; and it does not say why it failed, so then the files say whether they are to blame.
"""

import functools
import gc
import hashlib
import json
import logging
import math
import re
import shutil
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from llm_jax.base.devices import check_types, first_device
from llm_jax.base.errors import CheckpointError
from llm_jax.base.tree import State
from llm_jax.checkpoints.checksums import checksums, describe, leaf_names
from llm_jax.checkpoints.step_files import (
    Damaged,
    open_manifest,
    require_files,
    sync,
    sync_tree,
    unreadable,
    write_manifest,
)

_LEAST_IN_FLIGHT = 64 << 20  # bytes
_PATIENCE = 1  # seconds for all threads of a failed call
_ORDINARY = re.compile(r"[A-Za-z0-9/._-]*")
TEMPORARY = ".tmp"  # after a step's number: not all of it is there, or not any more


def write_step(path: Path, state: State, about: Mapping[str, Any]) -> None:
    """Write a step so that it outlives a power cut, and reads it back before it gets its name.

    Raises whatever orbax and the file system raise.
    """
    leaves = {part: _describe_with_sums(tree) for part, tree in state.items()}
    _require_room(path.parent, state)
    written = path.with_name(path.name + TEMPORARY)
    shutil.rmtree(written, ignore_errors=True)
    with _quiet(), _bounded(_largest(leaves)), _plain(path.parent) as folder:
        ocp.save_checkpointables(str(folder / written.name), state)
        _require_leaves(folder / written.name, leaves)
    write_manifest(written, about, leaves)
    sync_tree(written)
    written.rename(path)
    sync(path.parent)


def _require_leaves(path: Path, leaves: dict[str, dict[str, list]]) -> None:
    """OSError unless each leaf can be opened, with its type and shape, where orbax says that it saved it."""
    found = ocp.checkpointables_metadata(str(path)).metadata
    for part, wanted in leaves.items():
        got = describe(found.get(part))
        for name, (kind, shape, *_) in wanted.items():
            if got.get(name) != [kind, shape]:
                raise OSError(f"{part}/{name} cannot be read back")


def load_step(path: Path, abstract_state: State) -> tuple[State, dict[str, Any]]:
    """Return the parts of a step that are asked for, verified, and what the step says of itself.

    Args:
        path: a step's folder.
        abstract_state: shape structs by part, with shardings where arrays shall not go to the default device.

    Raises:
        Damaged: a checksum is wrong, or a file.
        CheckpointError: it could not be read, or it is sound and holds other shapes, types or names.
    """
    manifest = open_manifest(path)
    for part, tree in abstract_state.items():
        _require_same(path, part, manifest["leaves"].get(part, {}), describe(tree))
    return _load(path, abstract_state, manifest), manifest["about"]


def load_params(path: Path, part: str, abstract_params: Any) -> tuple[Any, dict[str, Any]]:
    """Return one part of a step, verified and then converted to the types that are asked for, from whatever
    floats were saved; and what the step says of itself.

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


def load_everything(path: Path) -> State:
    """Return all parts of a step as the nested arrays that were saved.

    Raises:
        Damaged: they cannot be trusted.
        CheckpointError: they could not be read.
        UserError: JAX would narrow them.
    """
    manifest = open_manifest(path)
    leaves = manifest["leaves"]
    check_types((kind for part in leaves.values() for kind, *_ in part.values()), f"an array in {path}")
    return _load(path, dict.fromkeys(leaves), manifest)


def leaves_digest(path: Path, part: str) -> str:
    """Return SHA-256 over names, shapes, types and checksums of a part's leaves, as the manifest has them."""
    leaves = open_manifest(path)["leaves"][part]
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()


def _load(path: Path, wanted: dict[str, Any], manifest: Mapping[str, Any]) -> State:
    """Arrays as orbax reads them, each with its checksum. Where it fails, for whatever reason, the files say
    whether they are to blame.
    """
    leaves = manifest["leaves"]
    try:
        with _quiet():
            device = jax.sharding.SingleDeviceSharding(first_device())
            placed = jax.tree.map(lambda leaf: _placed(leaf, device), wanted)
            with _bounded(_largest(leaves)), _plain(path.parent) as folder:
                state = ocp.load_checkpointables(str(folder / path.name), placed)
            sums = {part: checksums(tree) for part, tree in state.items()}
    except Exception as error:  # noqa: BLE001 - orbax, tensorstore and XLA have many classes for one cause
        failure = unreadable(path, error.__cause__ or error)
    else:
        for part, of_part in sums.items():
            for name, pair in of_part.items():
                if pair != leaves[part].get(name, [None, None])[2:]:
                    raise Damaged(f"{part}/{name} does not have its checksum")
        return state
    require_files(path, manifest)
    raise failure


def _placed(leaf: Any, device: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or device)


@contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    """A path to a folder that orbax takes as it is: in the folder's own it would read patterns, which match
    other runs or nothing, and backslashes as slashes.
    """
    if _ORDINARY.fullmatch(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="llm_jax-") as place:
        link = Path(place, "checkpoints")
        link.symlink_to(folder, target_is_directory=True)
        yield link


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
    """Keeps orbax's running commentary out of the user's sight; what matters comes back as errors.

    Transfers that a failed call gives up complain when they end: those in Python's threads are awaited, and
    coroutines collected.
    """
    disabled = logging.root.manager.disable
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    threads = set(threading.enumerate())
    logging.disable(logging.CRITICAL)
    # For threads and coroutines that were given up.
    sys.excepthook = threading.excepthook = lambda *_: None
    sys.unraisablehook = lambda what: None if isinstance(what.exc_value, Exception) else hooks[1](what)
    failed = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield
            except Exception as error:
                failed = True
                _await(set(threading.enumerate()) - threads)
                _collect(error)
                raise
    finally:
        logging.disable(disabled)
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
        if failed:
            _ignore_abandoned()


def _await(threads: Iterable[threading.Thread]) -> None:
    """Give threads the time to end; some never do, as they wait for what was given up."""
    until = time.monotonic() + _PATIENCE
    for thread in threads:
        threading.Thread.join(thread, max(0, until - time.monotonic()))  # orbax's own raises what it raised


def _collect(error: BaseException | None) -> None:
    """Let go of what an error and its causes hold: coroutines that were given up say so when they go."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()


@functools.cache
def _ignore_abandoned() -> None:
    """Hide what a failed call's writes in tensorstore's threads, which nobody can await, say in the end."""
    logging.getLogger("asyncio").addFilter(lambda record: "was never retrieved" not in record.getMessage())
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    show = sys.unraisablehook

    def show_others(what: Any) -> None:
        if str(what.exc_value) != "Event loop is closed":
            show(what)

    sys.unraisablehook = show_others


def _require_room(directory: Path, state: State) -> None:
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    tempfile.TemporaryFile(dir=directory).close()  # or orbax leaves threads that wait for ever
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(f"{needed:,} bytes are needed, {free:,} are free")
