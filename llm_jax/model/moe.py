"""A mixture of experts in the MLP's place: each token goes through the few that its router prefers.

No token is ever dropped (Gale et al. 2022): choices are sorted by expert, and a ragged product takes each
group through its expert's kernel, however uneven the groups are. Parameters are declared in `layers`.
Legend: B batch, T tokens, D d_model, F width inside an expert, E experts, C experts that a token takes,
M = B T C choices, L layers.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.config.model import ModelConfig
from llm_jax.model.norms import accumulation_dtype


class Routing(NamedTuple):
    """Where tokens go."""

    probabilities: jax.Array  # [B, T, E], of all experts
    chosen: jax.Array  # [B, T, C] int32, the likeliest first
    weights: jax.Array  # [B, T, C], of what the chosen ones say


@jax.named_scope("router")
def route(config: ModelConfig, x_BTD: jax.Array, router_DE: jax.Array) -> Routing:
    """Return the likeliest experts of each token under a softmax over all of them, in float32 at least; their
    probabilities weigh them, divided by their sum where the model does.
    """
    scores_BTE = jnp.einsum(
        "BTD,DE->BTE", x_BTD, router_DE, preferred_element_type=accumulation_dtype(x_BTD.dtype)
    )
    probabilities_BTE = jax.nn.softmax(scores_BTE, axis=-1)
    weights_BTC, chosen_BTC = jax.lax.top_k(probabilities_BTE, config.experts_per_token)
    if config.router_normalizes:
        weights_BTC /= jnp.sum(weights_BTC, axis=-1, keepdims=True)
    return Routing(probabilities_BTE, chosen_BTC, weights_BTC)


@jax.named_scope("experts")
def mix_experts(
    x_BTD: jax.Array,
    routing: Routing,
    activation: Callable[[jax.Array], jax.Array],
    gate_EDF: jax.Array | None,
    up_EDF: jax.Array,
    down_EFD: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return what the chosen experts say under their weights, [B, T, D]; then what is inside each of them,
    before the activation and after it (and times what the gate lets pass), [B, T, C, F].
    """
    num_choices, num_experts = routing.chosen.shape[-1], up_EDF.shape[0]
    expert_M = routing.chosen.reshape(-1)
    order_M = jnp.argsort(expert_M)
    size_E = jnp.bincount(expert_M, length=num_experts)
    rows_MD = x_BTD.reshape(-1, x_BTD.shape[-1])[order_M // num_choices]

    hidden_MF = jax.lax.ragged_dot(rows_MD, up_EDF if gate_EDF is None else gate_EDF, size_E)
    active_MF = activation(hidden_MF)
    if gate_EDF is not None:
        active_MF *= jax.lax.ragged_dot(rows_MD, up_EDF, size_E)
    said_MD = jax.lax.ragged_dot(active_MF, down_EFD, size_E)

    place_M = jnp.argsort(order_M)
    in_order = lambda rows: rows[place_M].reshape(*routing.chosen.shape, -1)  # noqa: E731
    output_BTD = jnp.einsum("BTCD,BTC->BTD", in_order(said_MD), routing.weights.astype(x_BTD.dtype))
    return output_BTD, in_order(hidden_MF), in_order(active_MF)


class Use(NamedTuple):
    """What a batch makes of its experts; of parts of a batch, `shares` add up to those of the whole."""

    weight: jax.Array  # [], of all tokens of the whole batch
    shares: jax.Array  # [L, E], of the choices, by expert


def expert_use(
    chosen_LBTC: jax.Array, num_experts: int, weights_BT: jax.Array, whole_weight: jax.Array
) -> Use:
    """Return what these tokens, in a batch whose tokens weigh `whole_weight`, make of the experts; one with
    weight 0 does not count.
    """
    share_BT = weights_BT / jnp.maximum(whole_weight, 1)
    taken_LBTE = jnp.mean(jax.nn.one_hot(chosen_LBTC, num_experts, dtype=share_BT.dtype), axis=-2)
    return Use(whole_weight, jnp.einsum("BT,LBTE->LE", share_BT, taken_LBTE))


def imbalance(probabilities_LBTE: jax.Array, weights_BT: jax.Array, use: Use) -> jax.Array:
    """Return how unevenly experts are used, as the mean over layers: 1 where all have as much to do, up to E
    where one does all (Fedus et al. 2021, equation 4). Its gradient goes through the probabilities, of which
    it is linear: that of a whole batch is the sum over its parts, each with the use that the whole makes.

    Args:
        probabilities_LBTE: of every layer's router.
        weights_BT: tokens with weight 0 do not count.
        use: of the whole batch.
    """
    share_BT = weights_BT / jnp.maximum(use.weight, 1)
    likely_LE = jnp.einsum("BT,LBTE->LE", share_BT, probabilities_LBTE)
    return probabilities_LBTE.shape[-1] * jnp.mean(jnp.sum(use.shares * likely_LE, axis=-1))
