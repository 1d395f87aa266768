# pyright: reportUnnecessaryTypeIgnoreComment=true
"""What type checkers see of `import llm_jax`: read by pyright and mypy, never run."""

from pathlib import Path
from typing import Any, assert_type

import jax
import optax

import llm_jax


def loss(
    params: dict[str, Any], config: llm_jax.ModelConfig, batch: llm_jax.Batch, dropout_key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    logits, _, _ = llm_jax.forward(params, config, batch.tokens, dropout_key=dropout_key)
    return logits.sum(), batch.weights.sum()


config = llm_jax.Config(train=llm_jax.TrainConfig(run=Path("runs/typed"), steps=10))
run = llm_jax.train(config, loss=loss, optimizer=optax.sgd(0.1), callbacks=[lambda step, metrics: None])
assert_type(run, llm_jax.Run)
assert_type(run.model, llm_jax.LanguageModel)
assert_type(run.report(), Path)
assert_type(llm_jax.load("runs/typed").generate("The", temperature=0.8, max_new_tokens=5), str)
assert_type(run.model.chat([{"role": "user", "content": "Hello"}], seed=1), str)
assert_type(run.model.evaluate("A text.").bits_per_byte, float)
params = llm_jax.init_params(jax.random.key(0), config.model)
assert_type(llm_jax.generate(params, config.model, [1]), list[int])
assert_type(llm_jax.read_config("a.toml", overrides=["--train.steps=1"]), llm_jax.Config)
assert_type(llm_jax.__version__, str)

llm_jax.load("runs/typed").generate("The", temprature=0.8)  # type: ignore[call-arg] - a slip is seen
