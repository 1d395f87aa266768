"""A trained model as lm-eval asks it: log-likelihoods, rolling ones, and text up to stop strings.

The rules are those of lm-eval's own backend for Hugging Face: what stands before a text is cut from its
beginning where both do not fit, a text without anything before it follows one certain token, and a long text
is rolled through windows that are as full as they can be. The tokenizer's start ids are part of a text,
but for one without context, and are cut with it. Only this file knows lm-eval.
"""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lm_eval  # pyright: ignore[reportMissingImports] - optional
import numpy as np
from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports] - optional
from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
from lm_eval.utils import (  # pyright: ignore[reportMissingImports]
    get_rolling_token_windows,
    make_disjoint_window,
)

from llm_jax.base.bars import tracked
from llm_jax.base.batch import Prompted
from llm_jax.base.errors import DataError, UserError
from llm_jax.checkpoints.checksums import checksums
from llm_jax.config.decoding import SamplingConfig
from llm_jax.data.windows import Windowing
from llm_jax.evaluation.scoring import TokenScores
from llm_jax.inference.request import GenerationSettings
from llm_jax.language_model.model import LanguageModel
from llm_jax.language_model.scoring import encode_pair, score_tokens
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.protocol import fingerprint

MOST_NEW_TOKENS = 256  # where a task does not say
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class HarnessModel(LM):
    """lm-eval's interface to a trained model.

    Args:
        model: the trained model.
        prefix_id: the token before texts that have nothing before them.
        max_length: maximum context in tokens, at most its context_length.
        batch_tokens: scored at once.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        prefix_id: int,
        max_length: int,
        batch_tokens: int,
    ):
        super().__init__()
        self.model, self.prefix_id = model, prefix_id
        self.start_ids = np.array(model.tokenizer.start_ids, np.int32)
        self.max_length, self.batch_tokens = max_length, batch_tokens

    def digest(self) -> str:
        """Of all that answers depend on."""
        facts = [checksums(self.model.params), fingerprint(self.model.tokenizer), repr(self.model.config)]
        facts += [self.prefix_id, self.max_length]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """For each (context, continuation): the continuation's log-likelihood in nats, and whether greedy
        decoding would give it.
        """
        asked = [self._pair(*request.args) for request in requests]
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        for number, scores in self._scores(asked, "continuations", disable_tqdm):
            found[number] = float(scores.log_probs.sum()), bool(scores.greedy.all())
            self.cache_hook.add_partial("loglikelihood", requests[number].args, found[number])
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood in nats of each text; 0 for an empty one."""
        windows = [
            (number, window)
            for number, request in enumerate(requests)
            for window in self._windows(request.args[0])
        ]
        found = np.zeros(len(requests))
        for at, scores in self._scores([window for _, window in windows], "windows", disable_tqdm):
            found[windows[at][0]] += scores.log_probs.sum()
        for request, nats in zip(requests, found.tolist(), strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, nats)
        return found.tolist()

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the continuation of each context, up to the task's stop strings or the model's end
        tokens.
        """
        start_ids, encode = self.model.tokenizer.start_ids, self.model.tokenizer.encode
        contexts = [[*start_ids, *encode(request.args[0]).tolist()] for request in requests]
        groups: dict[str, list[int]] = {}
        for number in sorted(range(len(requests)), key=lambda number: -len(contexts[number])):
            arguments: Any = requests[number].args  # the context, and how to go on
            groups.setdefault(json.dumps(arguments[1], sort_keys=True), []).append(number)
        batches = []
        for options, numbers in groups.items():
            request = _request(json.loads(options))
            most = request.get("max_new_tokens", MOST_NEW_TOKENS)
            rows = max(1, self.batch_tokens // min(self.max_length, 2 * most))
            batches += [(numbers[at : at + rows], request) for at in range(0, len(numbers), rows)]
        texts = [""] * len(requests)
        for numbers, request in batches if disable_tqdm else tracked(batches, "texts"):
            prompts = [contexts[number] or [self.prefix_id] for number in numbers]
            for number, text in zip(numbers, self._continue(prompts, request), strict=True):
                texts[number] = text
                self.cache_hook.add_partial("generate_until", requests[number].args, text)
        return texts

    def _pair(self, context: str, continuation: str) -> Prompted:
        if context.strip():
            pair = encode_pair(self.model.tokenizer, context, continuation)
            return Prompted(np.concatenate([self.start_ids, pair.tokens]), len(self.start_ids) + pair.given)
        tokens = self.model.tokenizer.encode(context + continuation)
        return Prompted(np.concatenate([[self.prefix_id], tokens]), 1)

    def _windows(self, text: str) -> Iterable[Prompted]:
        tokens = [*self.start_ids, *self.model.tokenizer.encode(text).tolist()]
        for pair in get_rolling_token_windows(tokens, self.prefix_id, self.max_length, context_len=1):
            given, wanted = make_disjoint_window(pair)
            yield Prompted(np.array(given + wanted), len(given))

    def _scores(self, texts: Sequence[Prompted], what: str, quiet: bool) -> Iterable[tuple[int, TokenScores]]:
        return score_tokens(
            self.model.params,
            self.model.config,
            texts,
            Windowing(self.max_length, self.max_length, self.batch_tokens),
            lambda batches: batches if quiet else tracked(batches, f"{len(texts):,} {what}"),
        )

    def _continue(self, prompts: Sequence[list[int]], request: GenerationSettings) -> list[str]:
        new, room = request.get("max_new_tokens", MOST_NEW_TOKENS), self.max_length
        kept = room - new if new < room else room  # A model with so short a context slides past it.
        continued = self.model.generate_many([prompt[-kept:] for prompt in prompts], **request)
        return [one.text for one in continued]


def _request(options: dict[str, Any]) -> GenerationSettings:
    """A task's `generation_kwargs`, whose names are lm-eval's: greedy, unless they say otherwise.

    Raises:
        UserError: it asks for something else.
    """
    stop = options.pop("until", None) or []
    lengths = [options.pop(name) for name in _LENGTHS if name in options]
    most = int(lengths[0]) if lengths else MOST_NEW_TOKENS
    sampled = options.pop("do_sample", options.get("temperature", 0) > 0)
    chosen = {name: options.pop(name) for name in _SAMPLING if name in options}
    if options:
        raise UserError(f"a task asks generation for {', '.join(options)}, which is not supported")
    # What a task leaves out is off, as it is to lm-eval.
    plain = SamplingConfig(temperature=1, top_p=1)
    sampling = dataclasses.replace(plain, **chosen) if sampled else SamplingConfig(temperature=0)
    stop = [stop] if isinstance(stop, str) else stop
    return {"max_new_tokens": most, "stop": stop, "sampling": sampling}


def asking(
    model: LanguageModel, *, prefix: str | None, max_length: int | None, batch_tokens: int
) -> HarnessModel:
    """Return a model as lm-eval asks it, with the tokens that begin and end a text as its checkpoint names
    them.

    Args:
        model: the trained model.
        prefix: what stands before texts that have nothing before them, a token of the tokenizer.
        max_length: maximum context in tokens; its context_length without it.
        batch_tokens: computed at once.

    Raises:
        UserError: the prefix is no single token, or max_length exceeds the context.
    """
    context = model.config.context_length
    if max_length is not None and max_length > context:
        raise UserError(f"max_length ({max_length}) must not exceed context_length ({context})")
    return HarnessModel(
        model,
        prefix_id=_prefix_id(model, prefix),
        max_length=max_length or context,
        batch_tokens=batch_tokens,
    )


def _prefix_id(model: LanguageModel, prefix: str | None) -> int:
    tokenizer = model.tokenizer
    named = prefix or model.chat_format.bos
    if named and isinstance(tokenizer, FileTokenizer) and (found := tokenizer.token_id(named)) is not None:
        return found
    if prefix is None and (known := [*tokenizer.start_ids, *model.chat_format.eos_ids]):
        return known[0]
    ids = tokenizer.encode("\n" if prefix is None else prefix).tolist()
    if prefix is not None and len(ids) != 1:
        raise UserError(f"prefix ({prefix!r}) must be one token of the model's tokenizer, got {len(ids)}")
    return ids[-1]


class Tasks(NamedTuple):
    """What lm-eval is to ask."""

    names: Sequence[str]  # of tasks and groups
    include_path: Path | None = None  # a folder with tasks beside lm-eval's own
    num_fewshot: int | None = None  # examples before each question; as a task says without a number
    limit: int | None = None  # only the first so many documents of each task


def run_tasks(asked: HarnessModel, tasks: Tasks, cache: Path | None = None) -> dict[str, Any]:
    """Return lm-eval's own results of these tasks.

    Args:
        asked: the model.
        tasks: what is asked.
        cache: where answers are kept, the beginning of a file's name.

    Raises:
        UserError: a task is not known.
        DataError: its data cannot be had.
    """
    manager = _manager(tasks.names, tasks.include_path)
    try:
        manager.load(list(tasks.names))  # Data that is there is not loaded anew by the line below.
    except (OSError, ImportError, ValueError, KeyError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise DataError(f"lm-eval could not load {', '.join(tasks.names)}: {cause:.300}") from None
    run: Any = lm_eval.simple_evaluate  # whose types know less than it takes
    return run(
        model=asked,
        tasks=list(tasks.names),
        task_manager=manager,
        num_fewshot=tasks.num_fewshot,
        limit=tasks.limit,
        use_cache=None if cache is None else f"{cache}-{asked.digest()[:12]}",
    )


def _manager(names: Sequence[str], include_path: Path | None) -> TaskManager:
    """What knows these tasks. lm-eval's own take long to read, and are left out where none is asked for."""
    own = None if include_path is None else str(include_path)
    if own is not None:
        manager = TaskManager(include_path=own, include_defaults=False)
        if set(names) <= set(manager.all_tasks):
            return manager
    manager = TaskManager(include_path=own)
    for name in names:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else "`lm-eval ls tasks` lists all"
            raise UserError(f"lm-eval has no task {name}; {hint}")
    return manager
