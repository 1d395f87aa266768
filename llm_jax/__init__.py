"""llm_jax: a language model from a text file, as a functional JAX/Flax program."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_jax.language_model.model import LanguageModel, load

__all__ = ["LanguageModel", "load"]


def __getattr__(name: str) -> Any:
    # Importing the package must cost nothing: JAX comes with the first use of `load`.
    if name in __all__:
        from llm_jax.language_model import model

        return getattr(model, name)
    raise AttributeError(f"module 'llm_jax' has no attribute {name!r}")
