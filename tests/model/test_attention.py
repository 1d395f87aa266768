"""Fused attention is the plain one: the TPU's kernel in Pallas's interpreter, cuDNN's arguments by XLA's code
of the same function, and the train steps that are lowered for those backends.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

from llm_jax.base.batch import Batch
from llm_jax.base.devices import programs_for
from llm_jax.base.tree import flatten
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, TrainConfig
from llm_jax.inference.decode import prefill
from llm_jax.inference.request import Layout
from llm_jax.model.attention import attention_pattern, attention_weights, mix
from llm_jax.model.decoder import forward, init_params
from llm_jax.model.fused_attention import fused_attention, fused_kernel
from llm_jax.training.losses import next_token_loss
from llm_jax.training.state import abstract_state
from llm_jax.training.step import step_arguments, train_steps

pytestmark = pytest.mark.compiles

LONG = 140  # more than one of the kernel's blocks, and no multiple of one
SCORES = re.compile(rf"f\d+\[[\d,]*{LONG},{LONG}\]")
SMALL = ModelConfig(
    vocab_size=37,
    context_length=LONG,
    d_model=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    d_ff=24,
    positions="rotary",
    activation="gelu",
    dropout=0.0,
    dtype="bfloat16",
    attention="fused",
)
WINDOWS = {"sliding_window": 130, "global_every": 2}


@pytest.fixture(params=["gpu", "tpu"])
def stand_ins(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs that are made for an accelerator, in which others stand in for the kernels."""
    attention, make = jax.nn.dot_product_attention, splash.make_splash_mha_single_device
    by_xla = lambda *qkv, implementation, **how: attention(*qkv, **how, implementation="xla")  # noqa: E731
    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    monkeypatch.setattr(splash, "make_splash_mha_single_device", partial(make, interpret=True))
    jax.clear_caches()  # of programs with the true kernels
    with programs_for(request.param):
        yield
    jax.clear_caches()


class Case(NamedTuple):
    """Settings of the model, whether the layer has a window, where rows start, and the type."""

    settings: dict[str, Any]
    local: bool
    start: tuple[int, int] | None
    dtype: str


CASES = {
    "full": Case({}, False, None, "float32"),
    "padded": Case({}, False, (5, 60), "bfloat16"),
    "scaled": Case({"attention_scale": 0.7, "num_kv_heads": 0}, False, (0, 60), "float32"),
    "window": Case({"sliding_window": 9}, True, (5, 60), "float32"),
    "window of one": Case({"sliding_window": 1}, True, None, "float32"),
    "one with a window": Case(WINDOWS, True, None, "float32"),
    "one without": Case(WINDOWS, False, (5, 60), "float32"),
}


def mixed_and_gradients(attend: Callable[..., jax.Array], qkv: list[jax.Array]) -> list[np.ndarray]:
    """What an attention gives, and the gradient of a sum in which each entry has another weight."""

    def weigh(*qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
        mixed = attend(*qkv)
        assert mixed.dtype == qkv[0].dtype
        return jnp.sum(jnp.sin(jnp.arange(mixed.size)).reshape(mixed.shape) * mixed), mixed

    gradients, mixed = jax.jit(jax.grad(weigh, (0, 1, 2), has_aux=True))(*qkv)
    return [np.asarray(x, np.float32) for x in (mixed, *gradients)]


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("case", CASES)
def test_fused_attention_and_its_gradients_are_those_of_plain_attention(case: str) -> None:
    settings, local, start, dtype = CASES[case]
    config = dataclasses.replace(SMALL, **settings)
    start_B = jnp.array(start or (0, 0))
    look = attention_pattern(
        config, jnp.arange(LONG), LONG, start_B[:, None], local=local, start_B=start and start_B
    )
    shapes = [(2, LONG, heads, config.head_dim) for heads in (4, config.kv_heads, config.kv_heads)]
    keys = jax.random.split(jax.random.key(0), 3)
    qkv = [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]
    real_BT11 = (jnp.arange(LONG)[None, :] >= start_B[:, None])[:, :, None, None]

    def plain(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> jax.Array:
        weights_BNTS, _, _ = attention_weights(config, q_BTNH, k_BTKH, look.mask)
        return jnp.where(real_BT11, mix(weights_BNTS.astype(dtype), v_BTKH), 0)

    def fused(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> jax.Array:
        kernel = fused_kernel(config)
        assert kernel is not None
        mixed = fused_attention(kernel, config, q_BTNH, k_BTKH, v_BTKH, look.windowed, look.start)
        return jnp.where(real_BT11, mixed, 0)

    limit = 5e-6 if dtype == "float32" else 2e-2
    for ours, theirs in zip(mixed_and_gradients(fused, qkv), mixed_and_gradients(plain, qkv), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=limit * max(1, np.abs(theirs).max()))


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("stand_ins", ["tpu"], indirect=True)
@pytest.mark.parametrize("switches", [{}, {"remat": True}, {"layers": "unroll"}], ids=str)
def test_a_model_with_fused_attention_is_the_same_model_and_keeps_no_scores(switches: dict[str, Any]) -> None:
    tokens_BT = np.random.default_rng(0).integers(0, 37, (2, LONG)).astype(np.int32)
    batch = Batch(tokens_BT, np.roll(tokens_BT, -1, axis=1), np.ones((2, LONG), np.float32))
    params = init_params(jax.random.key(1), SMALL)

    def program(**switches: Any) -> jax.stages.Compiled:
        config = dataclasses.replace(SMALL, **WINDOWS | switches)
        slopes = jax.grad(lambda params: next_token_loss(params, config, batch, None)[0])
        return jax.jit(slopes).lower(params).compile()

    fused, plain = program(**switches), program(attention="plain")
    assert SCORES.search(plain.as_text() or "")
    assert not SCORES.search(fused.as_text() or "")
    expected = dict(flatten(plain(params)))
    for path, leaf in flatten(fused(params)):
        assert np.linalg.norm(leaf - expected[path]) < 1e-2 * np.linalg.norm(expected[path]), path


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("stand_ins", ["tpu"], indirect=True)
def test_weights_of_fused_attention_are_seen_by_those_who_look() -> None:
    tokens_BT = np.random.default_rng(0).integers(0, 37, (2, LONG)).astype(np.int32)
    params, run = init_params(jax.random.key(1), SMALL), jax.jit(forward, static_argnums=1)
    _, _, fused = run(params, SMALL, tokens_BT)
    _, _, plain = run(params, dataclasses.replace(SMALL, attention="plain"), tokens_BT)
    np.testing.assert_allclose(fused.blocks.weights, plain.blocks.weights, atol=2e-2)


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("stand_ins", ["tpu"], indirect=True)
def test_prompts_are_read_by_fused_attention() -> None:
    tokens_BT = np.random.default_rng(0).integers(0, 37, (2, LONG)).astype(np.int32)
    start_B, params = np.array([60, 0], np.int32), init_params(jax.random.key(1), SMALL)

    def read(attention: str) -> tuple[str, list[np.ndarray]]:
        config = dataclasses.replace(SMALL, **WINDOWS, attention=attention)
        layout = Layout(params, config)
        program = prefill.lower(layout, tokens_BT, start_B, LONG + 9).compile()
        found = jax.device_get(program(layout, tokens_BT, start_B))
        logits_BV, cache = found
        assert cache.length == LONG
        real = [[row[:, start:] for row, start in zip(x, start_B, strict=True)] for x in cache.layers[1]]
        return program.as_text() or "", [
            logits_BV,
            *(np.asarray(x, np.float32) for pair in real for x in pair),
        ]

    (fused, ours), (plain, theirs) = read("fused"), read("plain")
    assert SCORES.search(plain)
    assert not SCORES.search(fused)
    for mine, other in zip(ours, theirs, strict=True):
        assert np.linalg.norm(mine - other) < 1e-2 * np.linalg.norm(other)


def test_a_cpu_has_no_kernel() -> None:
    assert fused_kernel(SMALL) is None


@pytest.mark.parametrize(
    ("platform", "kernels"),
    [
        ("tpu", ("splash_mha_fwd_residuals", "splash_mha_dq_no_residuals", "splash_mha_dkv_no_residuals")),
        ("cuda", ("__cudnn$fmhaSoftmax(", "__cudnn$fmhaSoftmaxBackward(")),
    ],
)
def test_a_train_step_has_the_kernels_of_the_platform_that_it_is_made_for(
    platform: str, kernels: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)  # asked of a library that is not here

    def program(attention: str, platform: str) -> str:
        model = dataclasses.replace(SMALL, **WINDOWS, attention=attention)
        config = Config(model=model, train=TrainConfig(batch_size=2))
        batch = Batch(*(np.zeros((2, LONG), kind) for kind in (np.int32, np.int32, np.float32)))
        with programs_for({"cuda": "gpu"}.get(platform, platform)):
            arguments = step_arguments(config, [batch], [True])
            traced = train_steps.trace(config, abstract_state(config), *arguments)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    fused, plain = program("fused", platform), program("plain", platform)
    assert not any(name in plain for name in kernels)
    on_cpu = program("fused", "cpu")
    assert not any(name in on_cpu for name in kernels)
    assert all(name in fused for name in kernels)
