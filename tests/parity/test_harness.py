"""lm-eval on a tiny model of ours beside its own backend for Hugging Face: every answer to three tasks."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import LlamaConfig, LlamaForCausalLM

import llm_jax
from llm_jax.base.errors import UserError
from llm_jax.cli import command
from llm_jax.convert import convert
from llm_jax.harness import harness
from llm_jax.language_model.harness_model import Tasks, asking, run_tasks
from llm_jax.tokenization.train_bpe import train_reference
from tests.conftest import ROOT
from tests.parity.harness_tasks import NAMES, answers, log_likelihoods, run_theirs, write_tasks

WORDS, PARAGRAPHS, SENTENCES = NAMES
TEXT = (ROOT / "data" / "sales_handbook.txt").read_text(encoding="utf-8")
CONTEXT = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of Hugging Face's with a tiny Llama, our import of it, and the tasks."""
    folder = tmp_path_factory.mktemp("harness")
    tokenizer = train_reference(TEXT, 500)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    first = tokenizer.token_to_id("<s>")  # stands before every text, as in Llama's files
    before = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", first)])
    tokenizer.post_processor = before
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.token_to_id("<s>"),
        eos_token_id=tokenizer.token_to_id("</s>"),
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder / "theirs")
    tokenizer.save(str(folder / "theirs" / "tokenizer.json"))
    (folder / "tasks").mkdir()
    write_tasks(folder / "tasks", TEXT)
    with pytest.raises(SystemExit) as stop:
        command.run(convert, ["import", str(folder / "theirs"), str(folder / "ours")])
    assert stop.value.code == 0
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What lm-eval says of our model, and of theirs."""
    model = asking(llm_jax.load(folder / "ours"), prefix=None, max_length=None, batch_tokens=512)
    ours = run_tasks(model, Tasks(NAMES, folder / "tasks"))
    return ours, run_theirs(folder / "theirs", folder / "tasks", bos="<s>", eos="</s>", max_length=CONTEXT)


def test_every_log_likelihood_equals_that_of_the_hugging_face_backend(results: tuple) -> None:
    for name, count in ((WORDS, 96), (PARAGRAPHS, 8)):
        ours, theirs = (np.array(log_likelihoods(side, name)) for side in results)
        assert len(ours) == count
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_scores_of_tasks_equal_those_of_the_hugging_face_backend(results: tuple) -> None:
    for name, measures in (
        (WORDS, ("acc", "acc_norm")),
        (PARAGRAPHS, ("word_perplexity", "byte_perplexity", "bits_per_byte")),
        (SENTENCES, ("exact_match",)),
    ):
        for measure in measures:
            ours, theirs = (side["results"][name][f"{measure},none"] for side in results)
            assert ours == pytest.approx(theirs, rel=1e-5), (name, measure)


def test_texts_up_to_stop_strings_equal_those_of_the_hugging_face_backend(results: tuple) -> None:
    ours, theirs = (answers(side, SENTENCES) for side in results)
    assert ours == theirs
    assert len(set(ours)) > 1


def run_command(words: list[str], status: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        command.run(harness, words)
    assert stop.value.code == status


def test_the_command_shows_what_lm_eval_says_and_answers_again_from_its_cache(
    folder: Path,
    results: tuple,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [
        str(folder / "ours"),
        "--tasks",
        f"{WORDS},{PARAGRAPHS}",
        "--include_path",
        str(folder / "tasks"),
    ]
    words += ["--prefix", "<s>", "--cache", str(tmp_path / "answers"), "--out", str(tmp_path / "out.json")]
    run_command(words)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name, measure in ((WORDS, "acc,none"), (PARAGRAPHS, "bits_per_byte,none")):
        assert said["results"][name][measure] == pytest.approx(results[0]["results"][name][measure], rel=1e-6)
    kept = json.loads((tmp_path / "out.json").read_text())
    assert len(kept["samples"][WORDS]) == 24
    monkeypatch.setattr("llm_jax.tasks.language_modelling.score_targets", None)  # nothing is computed again
    run_command(words)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["results"] == said["results"]


def test_other_weights_or_settings_have_other_answers(folder: Path) -> None:
    model = llm_jax.load(folder / "ours")
    other = dataclasses.replace(model, params=jax.tree.map(lambda leaf: leaf + 1e-3, model.params))
    digests = {
        asking(one, prefix=prefix, max_length=length, batch_tokens=512).digest()
        for one, prefix, length in (
            (model, "<s>", None),
            (other, "<s>", None),
            (model, "</s>", None),
            (model, "<s>", 50),
        )
    }
    assert len(digests) == 4
    again = asking(llm_jax.load(folder / "ours"), prefix="<s>", max_length=CONTEXT, batch_tokens=64)
    assert again.digest() in digests


def test_what_cannot_be_asked_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = [str(folder / "ours"), "--include_path", str(folder / "tasks"), "--tasks"]
    run_command([*ours, WORDS, "--max_length", "97"], status=2)
    assert "max_length (97) must not exceed context_length (96)" in capsys.readouterr().err
    run_command([*ours, WORDS, "--prefix", "two words"], status=2)
    assert "must be one token" in capsys.readouterr().err
    (folder / "tasks" / f"{WORDS}.jsonl").rename(folder / "tasks" / "away")
    run_command([*ours, WORDS], status=3)
    assert "could not load handbook_words" in capsys.readouterr().err
    (folder / "tasks" / "away").rename(folder / "tasks" / f"{WORDS}.jsonl")
    model = asking(llm_jax.load(folder / "ours"), prefix="<s>", max_length=None, batch_tokens=512)
    with pytest.raises(UserError, match="asks generation for num_beams"):
        model.generate_until([Request("a", {"until": ["."], "num_beams": 3})])


class Request(NamedTuple):
    """As lm-eval's requests, whose arguments are all that a model sees."""

    context: str
    options: dict[str, Any]

    @property
    def args(self) -> tuple[str, dict[str, Any]]:
        return self.context, self.options
