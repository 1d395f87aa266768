"""The one decoder: parameters in, logits out, as pure functions of nested dicts.

`Block` and `Head` declare the layers; scanning, rematerialising and stacking them is JAX's own. Legend: B
batch, T query tokens, S key/value slots, D d_model, N heads, H head_dim, V vocabulary, R rows of the head (V,
unless ids share one), L layers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.model.activations import Activations, SeenInBlock
from llm_jax.model.attention import AttentionPattern, attention_pattern, cap
from llm_jax.model.cache import KVCache
from llm_jax.model.checks import check_precision
from llm_jax.model.dropout import KEY_KIND, dropout
from llm_jax.model.layers import Block, Head, apply, embedding_init, head_scores
from llm_jax.model.norms import accumulation_dtype, norm
from llm_jax.model.positions import sinusoidal_table


def init_params(key: jax.Array, config: ModelConfig) -> Tree:
    """Return fresh parameters, layers stacked on a leading axis.

    >>> config = llm_jax.ModelConfig(vocab_size=65, d_model=16, num_layers=2, num_heads=2)
    >>> params = llm_jax.init_params(jax.random.key(0), config)
    >>> params["token_embedding"]["embedding"].shape
    (65, 16)

    Args:
        key: of which all of them are drawn.
        config: the decoder, with its vocab_size.
    """
    check_precision(config)
    keys = jax.random.split(key, 4)
    x_BTD = jnp.zeros((1, 1, config.d_model), config.dtype)
    sees_itself = AttentionPattern(
        jnp.ones((1, 1, 1), bool), None, jnp.bool_(False), None
    )  # parameters know none

    def init_block(key: jax.Array) -> Tree:
        return dict(Block(config).init(key, x_BTD, sees_itself, None, jnp.int32(0), None)["params"])

    params = {
        "token_embedding": {"embedding": _init_table(keys[0], config, _embedding_rows(config))},
        "blocks": jax.vmap(init_block)(jax.random.split(keys[1], config.num_layers)),
        "final_norm": norm(config, "final_norm").init(keys[2], x_BTD)["params"],
    }
    if config.positions == "learned":
        table_TD = _init_table(jax.random.fold_in(keys[0], 1), config, config.context_length)
        params["position_embedding"] = {"embedding": table_TD}
    if not config.tied_head:
        params["head"] = Head(config).init(keys[3])["params"]
    return params


def abstract_params(config: ModelConfig) -> Tree:
    """Return shapes and types of `init_params`, without computing anything."""
    return jax.eval_shape(lambda: init_params(jax.random.key(0, impl=KEY_KIND), config))


def unstack_blocks(tree: Any) -> Any:
    """Return the tree (of parameters, or a whole train state) with each "blocks" in it, stacked on a leading
    L, as a tuple of L trees, which unrolled layers read without a copy.
    """

    def apart(blocks: Tree) -> tuple[Tree, ...]:
        leaves, structure = jax.tree.flatten(blocks)
        layers = zip(*(jnp.unstack(leaf) for leaf in leaves), strict=True)
        return tuple(jax.tree.unflatten(structure, layer) for layer in layers)

    return _map_blocks(apart, tree)


def stack_blocks(tree: Any) -> Any:
    """Return the inverse of `unstack_blocks`."""
    return _map_blocks(lambda layers: jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers), tree)


def _map_blocks(change: Callable[[Any], Any], tree: Any) -> Any:
    has_blocks = lambda node: isinstance(node, dict) and "blocks" in node  # noqa: E731
    return jax.tree.map(
        lambda node: {**node, "blocks": change(node["blocks"])} if has_blocks(node) else node,
        tree,
        is_leaf=has_blocks,
    )


def hidden_states(
    params: Tree,
    config: ModelConfig,
    tokens_BT: jax.Array,
    *,
    dropout_key: jax.Array | None = None,
    first_row: jax.typing.ArrayLike = 0,
    start_B: jax.Array | None = None,
    begin_BT: jax.Array | None = None,
    added_BTD: jax.Array | None = None,
    cache: KVCache | None = None,
) -> tuple[jax.Array, KVCache | None, Activations]:
    """Return the residual stream after the final norm, [B, T, D]; the cache with these tokens in it; and all
    that was computed on the way.

    Args:
        params: as `init_params` makes them, or with their blocks unstacked.
        config: the decoder's shape.
        tokens_BT: int32 ids, already checked on the host.
        dropout_key: switches dropout on.
        first_row: number of the first row in the batch that these are a part of, whose dropout holds.
        start_B: int32, first real slot of each left-padded row; earlier slots are never attended to and
            positions count from it.
        begin_BT: int32, likewise of each token, where a row holds several texts one after another.
        added_BTD: what is added to the embeddings of the tokens.
        cache: earlier keys and values; these tokens take its next T slots.
    """
    check_precision(config)
    batch_size, num_tokens = tokens_BT.shape
    num_slots = num_tokens if cache is None else cache.layers[0].keys.shape[2]
    first = jnp.int32(0) if cache is None else cache.length
    if begin_BT is None:
        begin_BT = jnp.zeros((batch_size, 1), jnp.int32) if start_B is None else start_B[:, None]
    query_T = first + jnp.arange(num_tokens)
    look = partial(attention_pattern, config, query_T, num_slots, begin_BT, start_B=start_B)
    far, near = look(local=False), look(local=True) if config.sliding_window else None
    position_BT = jnp.maximum(query_T[None, :] - begin_BT, 0)

    token_BTD, signal_BTD = _embed(params, config, tokens_BT, position_BT)
    x_BTD = token_BTD if signal_BTD is None else token_BTD + signal_BTD
    if added_BTD is not None:
        x_BTD = x_BTD + added_BTD
    if dropout_key is not None:
        dropout_key, embedding_key = jax.random.split(dropout_key)
        x_BTD = dropout(embedding_key, config.embedding_dropout, x_BTD, first_row)
    blocks = params["blocks"]
    x_BTD, cache, seen = _run_blocks(blocks, config, x_BTD, far, near, cache, dropout_key, first_row)
    hidden_BTD = _final_norm(params, config, x_BTD)
    return hidden_BTD, cache, Activations(token_BTD, signal_BTD, far, seen, hidden_BTD)


def head_weights(params: Tree, config: ModelConfig) -> tuple[jax.Array, jax.Array | None]:
    """Return the output head's kernel [D, R] in the compute type and its bias [R], if it has one."""
    if not config.tied_head:
        return apply(Head(config), params["head"])
    return params["token_embedding"]["embedding"].astype(config.dtype).T, None


def row_logits(params: Tree, config: ModelConfig, hidden: jax.Array) -> jax.Array:
    """Return scores of the head's rows, [..., R] in at least float32, from hidden states [..., D]."""
    return cap(head_scores(hidden.astype(config.dtype), *head_weights(params, config)), config.logit_cap)


def logits(params: Tree, config: ModelConfig, hidden: jax.Array) -> jax.Array:
    """Return scores of the next token, [..., V] in at least float32; ids that share a row have the same."""
    rows = row_logits(params, config, hidden)
    if not config.shared_ids:
        return rows
    shared = jnp.broadcast_to(rows[..., -1:], (*rows.shape[:-1], config.shared_ids))
    return jnp.concatenate([rows[..., :-1], shared], axis=-1)


def read_out(params: Tree, config: ModelConfig, stream: jax.Array) -> jax.Array:
    """Return logits [..., V] off any residual stream [..., D], as if no block came after it (the logit
    lens).
    """
    return logits(params, config, _final_norm(params, config, stream))


def forward(
    params: Tree,
    config: ModelConfig,
    tokens_BT: jax.Array,
    *,
    dropout_key: jax.Array | None = None,
    start_B: jax.Array | None = None,
    cache: KVCache | None = None,
) -> tuple[jax.Array, KVCache | None, Activations]:
    """Return logits [B, T, V], and the rest as in `hidden_states`, whose arguments these are.

    >>> config = llm_jax.ModelConfig(vocab_size=65, d_model=16, num_layers=2, num_heads=2)
    >>> params = llm_jax.init_params(jax.random.key(0), config)
    >>> forward = jax.jit(llm_jax.forward, static_argnums=1)
    >>> logits, cache, activations = forward(params, config, jnp.zeros((1, 8), jnp.int32))
    >>> logits.shape
    (1, 8, 65)
    """
    hidden_BTD, cache, seen = hidden_states(
        params, config, tokens_BT, dropout_key=dropout_key, start_B=start_B, cache=cache
    )
    return logits(params, config, hidden_BTD), cache, seen


def _embedding_rows(config: ModelConfig) -> int:
    return config.num_rows + config.spare_embedding_rows


def _init_table(key: jax.Array, config: ModelConfig, rows: int) -> jax.Array:
    return embedding_init(config)(key, (rows, config.d_model), config.param_dtype)


def _final_norm(params: Tree, config: ModelConfig, stream: jax.Array) -> jax.Array:
    return apply(norm(config, "final_norm"), params["final_norm"], stream)


@jax.custom_vjp
def rows_of(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Return rows [..., D] of a table [R, D]; their gradients are added up in float32 at least, as one of a
    frequent id has so many terms that a sum in bfloat16 stops growing.
    """
    return jnp.take(table, ids, axis=0)


def _rows_forward(table: jax.Array, ids: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return jnp.take(table, ids, axis=0), (table, ids)


@jax.named_scope("embedding")
def _rows_backward(kept: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, None]:
    table, ids = kept
    sums = (
        jnp.zeros(table.shape, accumulation_dtype(table.dtype))
        .at[ids]
        .add(cotangent.astype(accumulation_dtype(table.dtype)))
    )
    return sums.astype(table.dtype), None


rows_of.defvjp(_rows_forward, _rows_backward)


@jax.named_scope("embedding")
def _embed(
    params: Tree, config: ModelConfig, tokens_BT: jax.Array, position_BT: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """Embedding and position signal of each token, [B, T, D] each; rotary positions add no signal."""
    rows_BT = jnp.minimum(tokens_BT, config.num_rows - 1) if config.shared_ids else tokens_BT
    token_BTD = rows_of(params["token_embedding"]["embedding"], rows_BT).astype(config.dtype)
    token_BTD *= config.embedding_scale
    if config.positions == "rotary":
        return token_BTD, None
    if config.positions == "learned":
        positions_TD = params["position_embedding"]["embedding"]
    else:
        positions_TD = jnp.asarray(sinusoidal_table(config.context_length, config.d_model), config.dtype)
    return token_BTD, rows_of(positions_TD, position_BT).astype(config.dtype)


def _run_blocks(
    blocks: Tree | tuple[Tree, ...],
    config: ModelConfig,
    x_BTD: jax.Array,
    far: AttentionPattern,
    near: AttentionPattern | None,
    cache: KVCache | None,
    key: jax.Array | None,
    first_row: jax.typing.ArrayLike,
) -> tuple[jax.Array, KVCache | None, SeenInBlock]:
    first = jnp.int32(0) if cache is None else cache.length

    def run_block(x_BTD: jax.Array, layer: tuple) -> tuple:
        block_params, is_global, dropout_keys, slots = layer
        look = far if near is None else jax.tree.map(partial(jnp.where, is_global), far, near)
        x_BTD, slots, seen = apply(
            Block(config), block_params, x_BTD, look, slots, first, dropout_keys, first_row
        )
        return x_BTD, (slots, seen)

    if config.remat:
        run_block = jax.checkpoint(run_block)
    global_L = np.array([config.is_global(number) for number in range(config.num_layers)])
    layer_keys = None if key is None else jax.random.split(key, (config.num_layers, 3))
    if config.layers == "scan" and cache is None and not isinstance(blocks, tuple):
        x_BTD, (_, seen) = jax.lax.scan(run_block, x_BTD, (blocks, global_L, layer_keys, None))
        return x_BTD, None, seen
    # Unstacked once: indexing the stack in each layer costs a copy there and a scatter in its gradient.
    if not isinstance(blocks, tuple):
        blocks = unstack_blocks({"blocks": blocks})["blocks"]
    outputs = []
    for number, block_params in enumerate(blocks):
        dropout_keys = None if layer_keys is None else layer_keys[number]
        slots = None if cache is None else cache.layers[number]
        x_BTD, output = run_block(x_BTD, (block_params, global_L[number], dropout_keys, slots))
        outputs.append(output)
    written, seen = zip(*outputs, strict=True)
    seen = jax.tree.map(lambda *layers: jnp.stack(layers), *seen)
    if cache is None:
        return x_BTD, None, seen
    return x_BTD, KVCache(written, cache.length + x_BTD.shape[1]), seen
