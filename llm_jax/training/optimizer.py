"""AdamW from optax with its schedule, clipping and decay mask; the defaults are torch's."""

import jax
import optax

from llm_jax.config import OptimConfig
from llm_jax.tree import Tree


def make_schedule(optim: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate by optimizer step: a straight warm-up, then constant, cosine or warm-up-stable-decay.

    Args:
        optim: the peak and the shape.
        steps: length of the whole run; cosine and wsd reach `final_fraction` of the peak at its end.
    """
    peak, final = optim.learning_rate, optim.learning_rate * optim.final_fraction
    after_warmup = max(1, steps - optim.warmup_steps)
    falling = max(1, round(steps * optim.decay_fraction))
    main = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, after_warmup, optim.final_fraction),
        "wsd": optax.linear_schedule(peak, final, falling, transition_begin=max(0, after_warmup - falling)),
    }[optim.schedule]
    if not optim.warmup_steps:
        return main
    # The first step already moves: it is one of warmup_steps equal rises, not a step at rate 0.
    rise = optax.linear_schedule(peak / (optim.warmup_steps + 1), peak, optim.warmup_steps)
    return optax.join_schedules([rise, main], [optim.warmup_steps])


def decay_mask(params: Tree) -> Tree:
    """True for kernels and embeddings, False for biases and norm scales."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key in ("kernel", "embedding"), params)


def make_optimizer(optim: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Clipping (if any), then AdamW under the schedule."""
    adamw = optax.adamw(
        make_schedule(optim, steps),
        b1=optim.beta1,
        b2=optim.beta2,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        mask=decay_mask if optim.decay == "matrices" else None,
    )
    return optax.chain(optax.clip_by_global_norm(optim.clip_norm), adamw) if optim.clip_norm else adamw
