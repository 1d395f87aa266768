"""Samples of a run: text that the model continues, from a prompt that is looked at before the first step."""

from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree
from llm_jax.language_model.model import LanguageModel
from llm_jax.runs.data import Materials


def check_prompt(material: Materials) -> None:
    """Refuse, before the first step, a prompt that no sample could begin with.

    Raises:
        UserError: it is empty, or has a token that the model has not.
        DataError: it cannot be encoded.
    """
    config = material.config
    if not material.samples:
        return
    if not config.train.prompt:
        raise UserError(
            "train.prompt must not be empty; set train.sample_tokens = 0 for a run without samples"
        )
    try:
        ids = material.store.tokenizer.encode(config.train.prompt)
    except ValueError as error:
        raise UserError(f"train.prompt ({config.train.prompt!r}) must be encodable: {error}") from None
    if not len(ids):
        raise UserError(f"train.prompt ({config.train.prompt!r}) must have a token of this tokenizer")
    if max(ids) >= config.model.vocab_size:
        raise UserError(
            f"train.prompt ({config.train.prompt!r}) must have tokens below model.vocab_size "
            f"({config.model.vocab_size}), got {max(ids)}"
        )


def draw_sample(material: Materials, params: Tree, num_tokens: int) -> str:
    """Return what the model continues the run's prompt with."""
    settings = material.config.train
    model = LanguageModel(material.config.model, params, material.store.tokenizer, material.chat())
    return model.generate(
        settings.prompt, max_new_tokens=num_tokens, sampling=settings.sampling, seed=settings.seed
    )
