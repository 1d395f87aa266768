"""`llm_jax.load`: a trained model as a value with its configuration, parameters and tokenizer.

The directory needs nothing beside it: the checkpoint in it carries configuration and tokenizer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack

import jax
import numpy as np

from llm_jax.base.errors import UserError
from llm_jax.base.terminal import remark
from llm_jax.base.tree import Tree
from llm_jax.checkpoints.reader import Step
from llm_jax.config.load import config_from_dict
from llm_jax.config.model import ModelConfig
from llm_jax.config.rules import require
from llm_jax.display.notebook import html_table
from llm_jax.evaluation.metrics import Score, summarise
from llm_jax.evaluation.scoring import TextScore
from llm_jax.inference.constrained import ENDED
from llm_jax.inference.decode import Sampled, generate_rows
from llm_jax.inference.grammar import Vocabulary
from llm_jax.inference.request import Generation, GenerationSettings, Layout, decoding_layout, requested
from llm_jax.inference.text import Continuation, stream_text
from llm_jax.language_model.decoding import constrained, speculated
from llm_jax.language_model.facts import model_facts
from llm_jax.language_model.save import save_model
from llm_jax.language_model.scoring import score_texts
from llm_jax.model.checks import check_room, check_tokens
from llm_jax.model.decoder import forward
from llm_jax.tasks.by_name import find_task
from llm_jax.tasks.saved import read_saved
from llm_jax.tokenization.byte_pair import RankTokenizer
from llm_jax.tokenization.chat_format import ChatFormat, chat_format_from_dict
from llm_jax.tokenization.conversation import Message, conversation_tokens
from llm_jax.tokenization.from_dict import tokenizer_from_dict
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.protocol import Tokenizer
from llm_jax.tokenization.streaming import StreamDecoder

_forward = jax.jit(forward, static_argnums=1)
Prompt = str | Sequence[int]  # text, or its token ids


class Generated(NamedTuple):
    """One continuation. An end token is no part of it; a stop string's tokens are, though not its text."""

    text: str
    token_ids: list[int]
    log_probs: list[float]  # of each token, nats, by the model alone: before penalty, temperature and filters
    finish_reason: Literal["stop", "length"]  # an end token or a stop string; or max_new_tokens


@dataclass(frozen=True, repr=False)
class LanguageModel:
    """A model that can be asked. `load` makes it, and so does whoever has parameters and a tokenizer.

    >>> model = llm_jax.load("runs/first")
    >>> model
    LanguageModel(step 4, 1 layer, d_model 16, context 8, ... token ids, ... parameters)
    """

    config: ModelConfig
    params: Tree
    tokenizer: Tokenizer
    # What the checkpoint says of itself: "config", "step", "metrics", versions ...
    about: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"LanguageModel({', '.join(model_facts(self.config, self.params, self.about).values())})"

    def _repr_html_(self) -> str:
        return html_table("LanguageModel", [model_facts(self.config, self.params, self.about)])

    @cached_property
    def layout(self) -> Layout:
        """The parameters as decoding reads them."""
        return decoding_layout(self.params, self.config)

    @cached_property
    def chat_format(self) -> ChatFormat:
        """The model's template and end tokens; empty for a model that has none."""
        return chat_format_from_dict(self.about.get("chat"), self.config.vocab_size)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens' bytes as constraints read them."""
        return Vocabulary(self.tokenizer, self.config.vocab_size)

    def logits(self, token_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the scores of each next token, [T, V] for ids [T] and [B, T, V] for [B, T].

        >>> model = llm_jax.load("runs/first")
        >>> model.logits(model.encode_prompt("The salesperson")).shape
        (3, ...)
        """
        tokens = np.atleast_2d(token_ids)
        check_tokens(tokens, self.config, "token_ids")
        scores_BTV = np.asarray(_forward(self.params, self.config, tokens.astype(np.int32))[0])
        return scores_BTV[0] if np.ndim(token_ids) == 1 else scores_BTV

    def score(self, text: str, *, prompt: str = "") -> TextScore:
        """Return how likely each token of a text is, after a prompt; see `score_all`.

        `total`, `bits_per_byte` and `perplexity` of the result sum it up.

        >>> model = llm_jax.load("runs/first")
        >>> model.score(" listens.", prompt="The salesperson").bytes
        9
        """
        return self.score_all([(prompt, text)])[0]

    def evaluate(self, text: str) -> Score:
        """Return what a whole text scores, as the command `evaluate --text` does: loss in nats per token with
        its standard error, perplexity, and bits per byte, which stay comparable between tokenizers.

        >>> score = llm_jax.load("runs/first").evaluate("A good question is worth an hour of talk.")
        >>> score.bytes, score.loss
        (..., ...)

        Raises:
            UserError, DataError: as `score_all`.
        """
        found = self.score(text)
        return summarise(-found.log_probs, found.bytes)

    def score_all(self, texts: Sequence[tuple[str, str]]) -> list[TextScore]:
        """Score many texts together, each a (prompt, text) with "" for no prompt.

        What the tokenizer puts before every text stands before each window. Where it puts nothing, a text
        without a prompt is scored from its second token on. A text longer than the context is scored in
        windows `eval_stride` tokens apart, as `evaluate` does, and a prompt that does not fit before its text
        loses its beginning. Prompt and text are encoded as one, so that the text's first token may begin with
        the prompt's last spaces.

        Raises:
            UserError: a text is empty.
            DataError: a text has no token that could be scored, or one that the model has not.
        """
        # A model that says nothing of a run is scored in windows side by side.
        recorded = self.about.get("config")
        stride = config_from_dict(recorded, "the checkpoint").train.eval_stride if recorded else 0
        stride = stride or self.config.context_length
        return score_texts(self.params, self.config, self.tokenizer, texts, stride=stride)

    def generate(self, prompt: Prompt, **settings: Unpack[GenerationSettings]) -> str:
        """Return the prompt's continuation, without the prompt; it ends at the model's end tokens.

        Args:
            prompt: a text, or token ids, which are taken as they are.
            **settings: max_new_tokens, seed, stop, constraint, speculation as in `Generation`; temperature,
                top_k, top_p, min_p and repetition_penalty as in `SamplingConfig`, or one as `sampling`.

        >>> model = llm_jax.load("runs/first")
        >>> text = model.generate("The salesperson", max_new_tokens=4, temperature=0.8, seed=1)
        >>> text == model.generate("The salesperson", max_new_tokens=4, temperature=0.8, seed=1)
        True
        """
        return "".join(self.stream(prompt, **settings))

    def stream(self, prompt: Prompt, **settings: Unpack[GenerationSettings]) -> Iterator[str]:
        """Give the continuation piece by piece, as `generate` has it; none ends inside a character."""
        request = requested(settings)
        if request.speculation is None:
            tokens = (int(drawn.tokens[0]) for drawn in self._rows([prompt], request))
        else:
            tokens = speculated(self, self.encode_prompt(prompt), request.speculation, request)
        return stream_text(tokens, StreamDecoder(self.tokenizer), request.stop, self._ends(request.stop))

    def generate_many(
        self, prompts: Sequence[Prompt], **settings: Unpack[GenerationSettings]
    ) -> list[Generated]:
        """Return the continuations of several prompts, drawn together, each as it would be alone; a prompt
        that is given again gets another sample.

        Raises:
            UserError: speculation is asked for, which is for one prompt.
        """
        request = requested(settings)
        require({"speculation must be for one prompt: use generate": request.speculation is None})
        ends = self._ends(request.stop)
        rows = [Continuation(StreamDecoder(self.tokenizer), request.stop, ends) for _ in prompts]
        log_probs: list[np.ndarray] = []
        for drawn in self._rows(prompts, request):
            log_probs.append(drawn.log_probs)
            for row, token in zip(rows, drawn.tokens.tolist(), strict=True):
                row.push(token)
            if all(row.ended for row in rows):
                break
        scores_BT = np.stack(log_probs, axis=1) if log_probs else np.zeros((len(rows), 0))
        return [_generated(row, scores_T) for row, scores_T in zip(rows, scores_BT, strict=True)]

    def chat(self, messages: Sequence[Message], **settings: Unpack[GenerationSettings]) -> str:
        """Return the answer to a conversation, by the model's own chat template.

        Args:
            messages: all of them, such as [{"role": "user", "content": "Hello"}]; what they say is text, even
                where it looks like a marker of the template.
            **settings: as of `generate`.

        Raises:
            UserError: the model has no template, or the conversation leaves no room for max_new_tokens.
            DataError: the template refuses these messages.
        """
        if self.chat_format.template is None:
            raise UserError(
                "chat needs a model with a chat template, and this has none; generate continues plain text"
            )
        ids = conversation_tokens(messages, self.chat_format, self.tokenizer)
        check_room(len(ids), requested(settings).max_new_tokens, self.config, "the conversation")
        return self.generate(ids, **settings)

    def save(self, directory: str | Path) -> None:
        """Write the model into a new directory, which `load` and all commands open.

        Raises:
            UserError: there is something already.
            CheckpointError: it cannot be written.

        >>> model = llm_jax.load("runs/first")
        >>> model.save("kept")
        >>> llm_jax.load("kept").generate("The", seed=1) == model.generate("The", seed=1)
        True
        """
        out = Path(directory)
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise UserError(f"{out} must not exist yet, or be empty: a model is saved into a new directory")
        chat = None if self.about.get("chat") is None else self.chat_format
        save_model(out, self.config, self.params, self.tokenizer, chat)

    def _ends(self, stop: Sequence[str]) -> tuple[int, ...]:
        """The ids that end a text: the model's own, and those of special tokens that are named as stop texts,
        since such a token stands for no text.
        """
        named = [token for text in stop if (token := _special_id(self.tokenizer, text)) is not None]
        return (*self.chat_format.eos_ids, *named, ENDED)

    def _rows(self, prompts: Sequence[Prompt], request: Generation) -> Iterator[Sampled]:
        ids = [self.encode_prompt(prompt) for prompt in prompts]
        if request.constraint is not None:
            return constrained(self, ids, request.constraint, request)
        return generate_rows(self.layout, ids, request, self.tokenizer.start_ids)

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Return the prompt's token ids, after those that stand before every text; UserError for an empty
        one. Ids are taken as they are.
        """
        if not prompt:
            raise UserError("the prompt must not be empty")
        if not isinstance(prompt, str):
            return list(prompt)
        return [*self.tokenizer.start_ids, *self.tokenizer.encode(prompt).tolist()]


def _generated(row: Continuation, scores_T: np.ndarray) -> Generated:
    row.finish()
    scores = scores_T[: len(row.token_ids)].tolist()
    return Generated(row.text, row.token_ids, scores, "stop" if row.ended else "length")


def _special_id(tokenizer: Tokenizer, name: str) -> int | None:
    """The id of a special token by what it is called."""
    if isinstance(tokenizer, RankTokenizer):
        return tokenizer.special_tokens().get(name)
    token = tokenizer.token_id(name) if isinstance(tokenizer, FileTokenizer) else None
    return None if token is None or tokenizer.token_bytes(token) else token


def load(
    directory: str | Path, *, step: Step = "best", report: Callable[[str], None] = remark
) -> LanguageModel:
    """Read a model from a run directory, or one that `convert import` or `LanguageModel.save` made.

    >>> llm_jax.load("runs/first").tokenizer.name
    'compact cl100k_base'

    Args:
        directory: holds `checkpoints/`.
        step: which checkpoint: "best" (the lowest validation loss), "last" or a number. A damaged one is
            passed over for the newest that is not, with a warning; a number never is.
        report: gets a line that says which checkpoint of a run it is, and the warnings.

    Raises:
        CheckpointError: there is none, or it is damaged.
        UserError: `step` names none, or it is another task's.
    """
    saved = read_saved(Path(directory), step, report)
    if not find_task(saved.config.task).writes_text:
        raise UserError(
            f"{directory} must hold a model that writes text, and its task is {saved.config.task.name}: "
            f"llm-jax predict {directory} tells its labels"
        )
    tokenizer = tokenizer_from_dict(saved.about["tokenizer"])
    return LanguageModel(saved.config.model, saved.params, tokenizer, saved.about)
