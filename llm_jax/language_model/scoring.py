"""Given texts scored by a model, wired: ids, windows, log-probabilities."""

from collections.abc import Sequence

import numpy as np

from llm_jax.base.bars import tracked
from llm_jax.base.batch import Prompted
from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.data.windows import Windowing
from llm_jax.evaluation.scoring import TextScore, TokenScores
from llm_jax.tasks.language_modelling import score_tokens, whole_text
from llm_jax.tokenization.protocol import Tokenizer
from llm_jax.tokenization.text_bytes import encode_sized


def score_texts(
    params: Tree, config: ModelConfig, tokenizer: Tokenizer, texts: Sequence[tuple[str, str]], *, stride: int
) -> list[TextScore]:
    """Return the score of each text after its prompt, (prompt, text); without a prompt its first token is the
    prompt, unless the tokenizer puts others before every text.

    Raises:
        UserError: a text is empty.
        DataError: it has an id that the model has not, or no second token and no prompt.
    """
    if not all(text for _, text in texts):
        raise UserError("the text to score must not be empty")
    prompted = [encode_pair(tokenizer, prompt, text) for prompt, text in texts]
    windowing = Windowing(config.context_length, stride, start_ids=tokenizer.start_ids)
    scores = dict(score_tokens(params, config, prompted, windowing, lambda b: tracked(b, "scoring")))
    return [
        _text_score(tokenizer, "".join(pair), text, scores[number])
        for number, (pair, text) in enumerate(zip(texts, prompted, strict=True))
    ]


def encode_pair(tokenizer: Tokenizer, prompt: str, text: str) -> Prompted:
    """Return the ids of a prompt and the text after it, as evaluation harnesses cut them.

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


def _text_score(tokenizer: Tokenizer, whole: str, text: Prompted, scores: TokenScores) -> TextScore:
    """The scores of the last tokens of a whole, prompt and text, with the bytes that they stand for."""
    tokens = np.asarray(text.tokens[text.given :], np.int32)
    sizes = encode_sized(tokenizer, whole).sizes
    return TextScore(tokens, *scores, bytes=int(sizes[len(sizes) - len(tokens) :].sum()))
