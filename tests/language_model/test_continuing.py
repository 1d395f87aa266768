"""What an imported model makes of several prompts: where each ends, how likely it was, and the command."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import llm_jax
from llm_jax.cli import command
from llm_jax.generate import generate
from llm_jax.language_model.model import LanguageModel
from tests.cli.test_chat import GREEDY, ending_with, import_talking_model
from tests.support.sampling import plain_but


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_talking_model(tmp_path_factory.mktemp("continuing"))


@pytest.fixture(scope="module")
def model(directory: Path) -> LanguageModel:
    return llm_jax.load(directory)


def test_a_row_ends_at_its_own_end_token_and_others_go_on(model: LanguageModel) -> None:
    prompts = ["it hums", "99 lamps", "it hums"]
    settings: dict[str, Any] = {"max_new_tokens": 12, "sampling": GREEDY, "seed": 0}
    whole = ending_with(model).generate_many(prompts, **settings)
    assert {(len(row.token_ids), row.finish_reason) for row in whole} == {(12, "length")}
    end = next(token for token in whole[0].token_ids[1:] if token not in whole[1].token_ids)
    at = whole[0].token_ids.index(end)
    stopping = ending_with(model, end)
    cut = stopping.generate_many(prompts, **settings)
    assert cut[0].token_ids == cut[2].token_ids == whole[0].token_ids[:at]
    assert cut[0].log_probs == whole[0].log_probs[:at]
    assert [row.finish_reason for row in cut] == ["stop", "length", "stop"]
    assert cut[1] == whole[1]
    assert stopping.generate(prompts[0], max_new_tokens=12, sampling=GREEDY) == cut[0].text
    assert whole[0].text.startswith(cut[0].text)


def test_drawing_stops_when_every_row_has_ended(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_jax.language_model import model as language_model

    drawn = []

    def counted(*arguments: Any, **options: Any) -> Iterator[Any]:
        for rows in trained_rows(*arguments, **options):
            drawn.append(rows)
            yield rows

    trained_rows = language_model.generate_rows
    monkeypatch.setattr(language_model, "generate_rows", counted)
    settings: dict[str, Any] = {"max_new_tokens": 12, "sampling": GREEDY, "seed": 0}
    first = [row.token_ids[0] for row in ending_with(model).generate_many(["it hums", "a"], **settings)]
    drawn.clear()
    ended = ending_with(model, *first).generate_many(["it hums", "a"], **settings)
    assert [(row.text, row.token_ids, row.finish_reason) for row in ended] == [("", [], "stop")] * 2
    assert len(drawn) == 1


def test_log_probabilities_are_those_of_the_models_own_logits(model: LanguageModel) -> None:
    odd = plain_but(temperature=0.7, top_k=5, repetition_penalty=1.3)
    (row,) = ending_with(model).generate_many(["it hums"], max_new_tokens=12, sampling=odd, seed=3)
    prompt = model.encode_prompt("it hums")
    scores = jax.nn.log_softmax(model.logits([*prompt, *row.token_ids]))
    wanted = [scores[len(prompt) - 1 + at, token] for at, token in enumerate(row.token_ids)]
    np.testing.assert_allclose(row.log_probs, wanted, rtol=1e-5, atol=1e-5)


def test_a_stop_text_ends_a_row_as_an_end_token_does(model: LanguageModel) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 12, "sampling": GREEDY, "seed": 0}
    (whole,) = ending_with(model).generate_many(["a"], **settings)
    stop = whole.text[3:5]
    (cut,) = ending_with(model).generate_many(["a"], **settings, stop=[stop])
    assert (cut.text, cut.finish_reason) == (whole.text[: whole.text.index(stop)], "stop")
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]


def generated(words: list[str], capsys: pytest.CaptureFixture[str], status: int = 0) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        command.run(generate, words)
    assert stop.value.code == status
    return capsys.readouterr().err if status else capsys.readouterr().out


def test_the_command_continues_several_prompts_as_each_alone(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [str(directory), "--max_new_tokens", "6", "--seed", "4"]
    alone = [generated([*where, "--prompt", text], capsys) for text in ("it hums", "a")]
    got = generated([*where, "--prompt", "it hums", "--prompt", "a"], capsys)
    assert got == f"--- prompt 1\n{alone[0]}--- prompt 2\n{alone[1]}"
    (tmp_path / "prompts").write_text("it hums\na\n")
    assert generated([*where, "--prompt_file", str(tmp_path / "prompts")], capsys) == got
    names = [line for line in generated([*where, "--prompt", "a", "--prompt", "b", "--samples", "2"], capsys)
             .splitlines() if line.startswith("--- ")]  # fmt: skip
    assert names == [f"--- prompt {p}, sample {s}" for p in (1, 2) for s in (1, 2)]


def test_the_command_gives_log_probabilities_as_json(
    directory: Path, model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prompt", "it hums", "--logprobs", "--max_new_tokens", "6", "--temperature", "0"]
    line = json.loads(generated([str(directory), *words], capsys))
    (row,) = model.generate_many(["it hums"], max_new_tokens=6, sampling=GREEDY, seed=0)
    assert (line["prompt"], line["text"], line["finish_reason"]) == ("it hums", row.text, row.finish_reason)
    assert [token["id"] for token in line["tokens"]] == row.token_ids
    assert [token["logprob"] for token in line["tokens"]] == row.log_probs


@pytest.mark.parametrize(
    ("content", "words", "status", "message"),
    [
        ("a\n\nb", [], 3, "none of them empty"),
        ("", [], 3, "a prompt on each line"),
        (None, [], 3, "must be a text file"),
        ("a", ["--prompt", "b"], 2, "not from both"),
    ],
)
def test_a_file_of_prompts_that_is_none_is_refused(
    directory: Path, tmp_path: Path, content: str | None, words: list[str], status: int, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if content is not None:
        (tmp_path / "prompts").write_text(content)
    words = [str(directory), "--prompt_file", str(tmp_path / "prompts"), *words]
    assert message in generated(words, capsys, status)


def test_a_special_token_that_is_named_as_a_stop_text_ends_it(model: LanguageModel) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 12, "sampling": plain_but(temperature=9.0), "seed": 0}
    name = "<|im_start|>"
    end = model.tokenizer.token_id(name)  # type: ignore[attr-defined]
    assert model.tokenizer.token_bytes(end) == b""
    free = ending_with(model)
    prompts = [str(number) for number in range(64)]
    every = zip(prompts, free.generate_many(prompts, **settings), strict=True)
    prompt, whole = next(pair for pair in every if end in pair[1].token_ids)
    at = whole.token_ids.index(end)
    (cut,) = free.generate_many([prompt], stop=[name, "never said"], **settings)
    assert (cut.token_ids, cut.finish_reason) == (whole.token_ids[:at], "stop")
    assert free.generate(prompt, stop=[name], **settings) == cut.text
    (other,) = free.generate_many([prompt], stop=["im_start"], **settings)
    assert (other.token_ids, other.finish_reason) == (whole.token_ids, "length")
