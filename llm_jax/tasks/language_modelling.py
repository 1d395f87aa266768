"""The task of language models: the next token of a text, scored over all of what is held out."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from llm_jax.base.bars import tracked
from llm_jax.base.batch import Batch, Prompted, Rows
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config
from llm_jax.data import batches
from llm_jax.data.batches import OrderStart
from llm_jax.data.store import Store
from llm_jax.data.windows import Windowing, scoring_batch, scoring_rows
from llm_jax.evaluation.baselines import cached_baselines
from llm_jax.evaluation.metrics import summarise
from llm_jax.evaluation.scoring import TokenScores, scores_of_texts
from llm_jax.model.checks import check_tokens
from llm_jax.tasks.task import Metric, Task
from llm_jax.tokenization.protocol import Tokenizer
from llm_jax.training.losses import NEXT_TOKEN, score_targets


def batch_at(config: Config, store: Store, index: int, start: OrderStart) -> Batch:
    """Return the training batch with this index: windows of the training split."""
    return batches.batch_at(
        store.tokens("train"),
        order=config.train.order,
        context_length=config.model.context_length,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        step=index,
        start_ids=store.tokenizer.start_ids,
        start=start,
    )


def held_out(store: Store) -> Prompted:
    """Return the validation split, as it is scored."""
    return whole_text(store.tokenizer, store.tokens("validation"))


def whole_text(tokenizer: Tokenizer, tokens: np.ndarray) -> Prompted:
    """Return a text's ids [N], of which all are to be scored that have something before them."""
    return Prompted(tokens, 0 if tokenizer.start_ids else 1)


def score_tokens(
    params: Tree,
    config: ModelConfig,
    texts: Sequence[Prompted],
    windowing: Windowing,
    shown: Callable[[Sequence], Iterable] = iter,
) -> Iterator[tuple[int, TokenScores]]:
    """Yield each text's number and scores as they are ready, in no order.

    Args:
        params: the model's parameters.
        config: its shape.
        texts: ids with what is given.
        windowing: how long ones are cut.
        shown: may show progress over the batches.

    Raises:
        DataError: an id is not the model's, or a text has no token to score.
    """
    for text in texts:
        check_tokens(text.tokens[:, None], config, "the text")  # [N, 1]: ids alone, of any length

    def score_rows(each: Rows) -> tuple:
        batch = scoring_batch(texts, each, windowing.start_ids)
        return *score_targets(params, config, batch), batch.weights > 0

    yield from scores_of_texts(score_rows, scoring_rows(texts, windowing), shown)


def target_nats(params: Tree, config: Config, store: Store, text: Prompted) -> np.ndarray:
    """Return the nats of each target of a text, [N], in the windows of a run's evaluation."""
    context_length, train = config.model.context_length, config.train
    windowing = Windowing(
        context_length,
        train.eval_stride or context_length,
        train.eval_batch_size * context_length,
        store.tokenizer.start_ids,
    )
    ((_, scores),) = score_tokens(params, config.model, [text], windowing, lambda b: tracked(b, "scoring"))
    return -scores.log_probs


def evaluate(params: Tree, config: Config, store: Store) -> dict[str, float]:
    """Return the score over the whole validation split, as `evaluation.metrics.Score` names its numbers."""
    text = held_out(store)
    nats = target_nats(params, config, store, text)
    return summarise(nats, int(np.sum(store.sizes[text.given :])))._asdict()


def baselines(config: Config, store: Store) -> dict[str, float]:
    """Return nats per token that n-gram counts reach on the validation split; counted once."""
    return cached_baselines(
        store.path / "baselines.json",
        store.tokens("train"),
        store.tokens("validation"),
        config.model.vocab_size,
    )


LANGUAGE_MODELLING = Task(
    NEXT_TOKEN,
    batch_at,
    evaluate,
    (
        Metric("bits per byte", "{bits_per_byte:.4f}"),
        Metric("validation loss", "{loss:.4f}", "± {standard_error:.3f} nats per token"),
        Metric("perplexity", "{perplexity:.2f}"),
    ),
    "validation {loss:.3f} +- {standard_error:.3f} nats, perplexity {perplexity:.1f}, "
    "{bits_per_byte:.3f} bits per byte",
    baselines=baselines,
    writes_text=True,
)
