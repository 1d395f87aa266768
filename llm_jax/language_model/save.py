"""A model as a directory that `load` opens."""

from pathlib import Path
from typing import Any

import jax

from llm_jax.base.environment import versions
from llm_jax.base.tree import Tree
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.load import to_dict
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.protocol import Tokenizer


def save_model(
    out: Path,
    model: ModelConfig,
    params: Tree,
    tokenizer: Tokenizer,
    chat: ChatFormat | None = None,
    **more: Any,
) -> None:
    """Write a checkpoint of step 0 that holds a model alone.

    Args:
        out: the directory to make.
        model: the decoder.
        params: its parameters.
        tokenizer: what its ids stand for.
        chat: how it is talked to, where it is.
        **more: further JSON values that the checkpoint says of itself.

    Raises:
        CheckpointError: it cannot be written.
    """
    about: dict[str, Any] = {
        "config": to_dict(Config(model=model)),
        "tokenizer": tokenizer.to_dict(),
        "data_fingerprint": None,
        "versions": versions(),
    } | more
    if chat is not None:
        about["chat"] = chat.to_dict()
    with Checkpoints(checkpoint_directory(out), keep=2, about=about) as checkpoints:
        # device_put takes aligned memory of a CPU as it is; jnp.asarray would copy it.
        checkpoints.save(0, {"params": jax.device_put(params)}, metrics={}, score=None)
