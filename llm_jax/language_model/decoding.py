"""Other ways of decoding, wired to a loaded model and its tokenizer: speculation and constraints."""

from collections.abc import Iterator, Sequence

from llm_jax.base.errors import UserError
from llm_jax.inference.constrained import constrained_tokens
from llm_jax.inference.decode import Sampled
from llm_jax.inference.grammar import Constraint, GrammarMasks
from llm_jax.inference.proposers import Draft, PromptLookup
from llm_jax.inference.request import Decodable, Generation, Speculation
from llm_jax.inference.speculative import Proposer, speculate_tokens
from llm_jax.model.checks import check_room
from llm_jax.tokenization.protocol import fingerprint


def speculated(
    model: Decodable, prompt: Sequence[int], speculation: Speculation, request: Generation
) -> Iterator[int]:
    """Give the tokens after a prompt.

    Raises:
        UserError: the draft has another vocabulary, or the prompt leaves no room.
    """
    count, draft = speculation.count, speculation.draft
    proposer: Proposer = PromptLookup(count, model.config.vocab_size)
    if draft is not None:
        _check_draft(model, draft)
        room = request.max_new_tokens + count
        check_room(len(prompt), room, draft.config, "the draft: max_new_tokens and a proposal")
        proposer = Draft(count, request.sampling)
    calls = speculate_tokens(model.layout, prompt, request, proposer, draft and draft.layout)

    def tokens() -> Iterator[int]:
        for new in calls:
            speculation.on_call(len(new))
            yield from map(int, new)

    return tokens()


def constrained(
    model: Decodable, prompts: Sequence[Sequence[int]], constraint: Constraint, request: Generation
) -> Iterator[Sampled]:
    """Give the tokens after each prompt, as `constrained_tokens` yields them, each row a match of its own."""
    masks = [GrammarMasks(model.vocabulary, constraint, model.chat_format.eos_ids) for _ in prompts]
    return constrained_tokens(model.layout, prompts, masks, request)


def _check_draft(model: Decodable, draft: Decodable) -> None:
    if fingerprint(draft.tokenizer) != fingerprint(model.tokenizer):
        raise UserError(
            f"the draft's tokenizer ({draft.tokenizer.name}, {draft.tokenizer.vocab_size} ids) must be the "
            f"model's ({model.tokenizer.name}, {model.tokenizer.vocab_size} ids), but is another"
        )
    if draft.config.vocab_size != model.config.vocab_size:
        raise UserError(
            f"the draft's vocab_size ({draft.config.vocab_size}) must be the model's "
            f"({model.config.vocab_size})"
        )
