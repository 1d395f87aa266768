"""Given texts scored by a model, wired: ids, windows, log-probabilities."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from llm_jax.base.batch import Prompted, Rows
from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.data.windows import Windowing, scoring_batch, scoring_rows
from llm_jax.evaluation.scoring import TextScore, TokenScores, scores_of_texts
from llm_jax.model.checks import check_tokens
from llm_jax.tokenization.protocol import Tokenizer
from llm_jax.tokenization.text_bytes import encode_sized
from llm_jax.training.losses import score_targets


def score_texts(
    params: Tree, config: ModelConfig, tokenizer: Tokenizer, texts: Sequence[tuple[str, str]], *, stride: int
) -> list[TextScore]:
    """The score of each text after its prompt, (prompt, text); without a prompt its first token is the
    prompt, unless the tokenizer puts others before every text.

    Raises:
        UserError: a text is empty.
        DataError: it has an id that the model has not, or no second token and no prompt.
    """
    if not all(text for _, text in texts):
        raise UserError("the text to score must not be empty")
    prompted = [encode_pair(tokenizer, prompt, text) for prompt, text in texts]
    windowing = Windowing(config.context_length, stride, start_ids=tokenizer.start_ids)
    scores = dict(score_tokens(params, config, prompted, windowing))
    return [
        _text_score(tokenizer, "".join(pair), text, scores[number])
        for number, (pair, text) in enumerate(zip(texts, prompted, strict=True))
    ]


def encode_pair(tokenizer: Tokenizer, prompt: str, text: str) -> Prompted:
    """The ids of a prompt and the text after it, as evaluation harnesses cut them.

    Both are encoded as one text, whose tokens after as many as the prompt alone has are the text's; they may
    begin with the prompt's last spaces, or with more of it where all of the text joins it in one token.
    Without a prompt the first token is given, unless the tokenizer puts others before every text.
    """
    bare = prompt.rstrip()
    if not bare:
        return whole_text(tokenizer, tokenizer.encode(prompt + text))
    given = tokenizer.encode(bare)
    whole = tokenizer.encode(prompt + text)
    count = min(len(given), len(whole) - 1)
    return Prompted(np.concatenate([given[:count], whole[count:]]), count)


def whole_text(tokenizer: Tokenizer, tokens: np.ndarray) -> Prompted:
    """A text's ids [N], of which all are to be scored that have something before them."""
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


def _text_score(tokenizer: Tokenizer, whole: str, text: Prompted, scores: TokenScores) -> TextScore:
    """The scores of the last tokens of a whole, prompt and text, with the bytes that they stand for."""
    tokens = np.asarray(text.tokens[text.given :], np.int32)
    sizes = encode_sized(tokenizer, whole).sizes
    return TextScore(tokens, *scores, bytes=int(sizes[len(sizes) - len(tokens) :].sum()))
