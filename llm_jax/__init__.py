"""llm_jax: a language model from a text file, as a functional JAX/Flax program.

Importing it costs nothing: each name comes, with JAX, when it is first used.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_jax.api.classifier import TextClassifier, fit
    from llm_jax.api.generate import generate
    from llm_jax.api.run import Run
    from llm_jax.api.train import read_config, train
    from llm_jax.base.batch import Batch
    from llm_jax.config.decoding import SamplingConfig
    from llm_jax.config.model import ModelConfig
    from llm_jax.config.run import Config, DataConfig, OptimConfig, TrainConfig
    from llm_jax.language_model.model import LanguageModel, load
    from llm_jax.model.decoder import forward, init_params

    __version__: str

__all__ = [
    "Batch",
    "Config",
    "DataConfig",
    "LanguageModel",
    "ModelConfig",
    "OptimConfig",
    "Run",
    "SamplingConfig",
    "TextClassifier",
    "TrainConfig",
    "__version__",
    "fit",
    "forward",
    "generate",
    "init_params",
    "load",
    "read_config",
    "train",
]

_HOMES = {
    "api.classifier": ("TextClassifier", "fit"),
    "api.generate": ("generate",),
    "api.run": ("Run",),
    "api.train": ("read_config", "train"),
    "base.batch": ("Batch",),
    "config.decoding": ("SamplingConfig",),
    "config.model": ("ModelConfig",),
    "config.run": ("Config", "DataConfig", "OptimConfig", "TrainConfig"),
    "language_model.model": ("LanguageModel", "load"),
    "model.decoder": ("forward", "init_params"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("llm-jax")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"llm_jax.{home}"), name)
    raise AttributeError(f"module 'llm_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """A command's module does not hide the function of the same name (`train`, `generate`), which importing
    it would otherwise do.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
