"""What `doctor` looks at: each thing by itself, so that one that is broken hides no other."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from llm_jax.base.errors import UserError

_NAME = "llm-jax"
_FOR_DEVELOPERS = {"test", "parity", "browser", "docs"}
# JAX's own extras are other packages, which alone say that they were chosen.
_PLUGINS = {"jax[cuda13]": "jax-cuda13-plugin", "jax[tpu]": "libtpu"}
_LEAST_ROOM = 200_000_000  # bytes; a first run takes some ten million


class Finding(NamedTuple):
    """One thing, and how it is."""

    what: str
    state: Literal["ok", "not there", "BROKEN"]
    told: str


def examine() -> list[Finding]:
    """Look at everything."""
    looks = {
        "packages": _packages,
        "devices": _devices,
        "compiled programs": _cache,
        "room on disk": _room,
        "tokenizers": _tokenizers,
        "extras": _extras,
    }
    return [finding for what, look in looks.items() for finding in _looked(what, look)]


def _looked(what: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a look finds; what keeps it from looking is a finding, too."""
    try:
        yield from look()
    except (UserError, ImportError, AttributeError, OSError, RuntimeError) as error:
        yield Finding(what, "BROKEN", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _packages() -> Iterator[Finding]:
    from llm_jax.base.environment import versions

    found = versions()
    shown = ", ".join(f"{name} {version}" for name, version in found.items())
    lost = [name for name, version in found.items() if version == "not installed"]
    yield Finding("packages", "BROKEN" if lost else "ok", shown)


def _devices() -> Iterator[Finding]:
    from llm_jax.base.devices import first_device

    found = first_device().client.devices()
    yield Finding("devices", "ok", ", ".join(f"{device} ({device.device_kind})" for device in found))


def _cache() -> Iterator[Finding]:
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if folder is None or not Path(folder).is_dir() or not os.access(folder, os.W_OK):
        told = "no folder to keep them in: each start compiles; set XDG_CACHE_HOME to one that you can write"
        yield Finding("compiled programs", "not there", told)
    else:
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        yield Finding("compiled programs", "ok", f"{size / 1e6:,.0f} MB in {folder}")


def _room() -> Iterator[Finding]:
    here = Path.cwd()
    free, writable = shutil.disk_usage(here).free, os.access(here, os.W_OK)
    told = f"{free / 1e9:,.1f} GB free in {here}" + ("" if writable else ", which you cannot write to")
    yield Finding("room on disk", "ok" if writable and free >= _LEAST_ROOM else "BROKEN", told)


def _tokenizers() -> Iterator[Finding]:
    from llm_jax.tokenization.byte_pair import named_tokenizer

    size = named_tokenizer("cl100k_base").vocab_size
    yield Finding("tokenizers", "ok", f"cl100k_base ({size:,} ids), bytes, characters and bpe work offline")


def _extras() -> Iterator[Finding]:
    """The optional dependencies that the package names, but for those of its own tests."""
    wanted: dict[str, list[str]] = {}
    for line in metadata.requires(_NAME) or ():
        requirement, _, marker = line.partition(";")
        if named := re.search(r"""extra == ["']([\w-]+)["']""", marker):
            package = _PLUGINS.get(requirement.strip()) or re.split(r"[\[<>=!~ ;]", requirement.strip())[0]
            wanted.setdefault(named[1], []).append(package)
    for extra in sorted(wanted.keys() - _FOR_DEVELOPERS):
        found = {package: _version(package) for package in wanted[extra]}
        if all(found.values()):
            shown = ", ".join(f"{package} {version}" for package, version in found.items())
            yield Finding(f"extra {extra}", "ok", shown)
        else:
            yield Finding(f"extra {extra}", "not there", f'to get it: pip install "{_NAME}[{extra}]"')


def _version(package: str) -> str:
    """The installed version, '' for none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
