"""What a program runs on: versions, devices, processors, threads, variables, and the state of its source."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

PACKAGES = (
    "llm-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "tiktoken",
    "tokenizers",
    "grain",
)
_VARIABLES = (
    *("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "JAX_DEFAULT_MATMUL_PRECISION"),
    *("JAX_ENABLE_X64", "JAX_DEFAULT_PRNG_IMPL", "JAX_THREEFRY_PARTITIONABLE"),
)


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def environment() -> dict[str, Any]:
    """Return what a run runs on: versions, devices, processors, threads, variables, command and git state."""
    return {
        "versions": versions(),
        "processor": _processor(),
        "threads": _threads(),
        "variables": {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)},
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "devices": [jax.devices()[0].device_kind],  # the one that trains
        "idle_devices": len(jax.devices()) - 1,
        "command": sys.argv,
        "git": _git_state(),
    }


def _threads() -> int:
    """As XLA sizes its pool on a CPU."""
    wanted = os.environ.get("PJRT_NPROC") or os.environ.get("NPROC", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git_state() -> dict[str, Any] | None:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "modified": git("status", "--porcelain").splitlines()}
    except (OSError, subprocess.CalledProcessError):
        return None
