"""The command that generates: the same seed the same text, several samples, and what it refuses."""

import dataclasses
from pathlib import Path

import pytest

import llm_jax
from llm_jax.base.errors import UserError
from llm_jax.generate import generate
from llm_jax.language_model.decoding import Speculation
from llm_jax.tokenization.plain import ByteTokenizer
from tests.support.commands import run_command


def refused(errors: str, run: Path) -> str:
    """Standard error after the line that says which checkpoint was read, where one was."""
    return errors.removeprefix(f"{run}: step 12 of 12, the best by validation\n")


def test_generate_streams_the_same_text_for_the_same_seed(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        run_command(generate, [str(trained), "--prompt", "The", "--max_new_tokens", "20", "--seed", seed])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("The")


def test_generate_makes_several_samples(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(generate, [str(trained), "--samples", "3", "--max_new_tokens", "9"])
    assert capsys.readouterr().out.count("--- sample") == 3


def test_generate_speculates_with_the_text_so_far_or_a_draft(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for words in ([], ["--speculate", "2"], ["--speculate", "2", "--draft", str(trained)]):
        words = ["--prompt", "The", "--max_new_tokens", "5", "--temperature", "0", *words]
        run_command(generate, [str(trained), *words])
        texts.append(capsys.readouterr())
    assert texts[0].out == texts[1].out == texts[2].out
    assert texts[0].err == f"{trained}: step 12 of 12, the best by validation\n"
    assert "5 tokens in 3 calls of the model, 1.67 a call; 2 proposed" in " ".join(texts[2].err.split())


def test_a_draft_with_another_tokenizer_or_no_room_is_refused(trained: Path) -> None:
    model = llm_jax.load(trained)
    other = dataclasses.replace(model, tokenizer=ByteTokenizer())
    with pytest.raises(UserError, match="tokenizer"):
        model.generate("The", max_new_tokens=2, speculation=Speculation(2, other))
    short = dataclasses.replace(model, config=dataclasses.replace(model.config, context_length=4))
    with pytest.raises(UserError, match=r"draft.*context_length \(4\)"):
        model.generate("The", max_new_tokens=2, speculation=Speculation(2, short))


def test_generate_writes_what_a_regular_expression_or_a_schema_asks_for(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(trained), "--prompt", "The", "--max_new_tokens", "7"]
    run_command(generate, [*words, "--regex", "(yes|no)[.]"])
    assert capsys.readouterr().out in ("Theyes.\n", "Theno.\n")
    (tmp_path / "schema.json").write_text('{"enum": [12, true]}')
    run_command(generate, [*words, "--json_schema", str(tmp_path / "schema.json"), "--samples", "3"])
    lines = capsys.readouterr().out.split()
    assert {line for line in lines if line.startswith("The")} <= {"The12", "Thetrue"}
    assert len(lines) == 12
    (tmp_path / "schema.json").write_text('{"type": "objekt"}')
    bad = [["--regex", "(a"], ["--regex", "a", "--speculate", "1"], ["--regex", "a", "--stop", "b"]]
    bad += [["--json_schema", "nowhere.json"], ["--json_schema", str(tmp_path)]]
    bad += [["--json_schema", str(tmp_path / "schema.json"), *more] for more in ([], ["--regex", "a"])]
    for more in bad:
        run_command(generate, [*words, *more], status=2)
        assert refused(capsys.readouterr().err, trained).count("\n") == 1


BAD_REQUESTS = [
    ["--prompt", ""],
    ["--max_new_tokens", "0"],
    ["--samples", "0"],
    ["--seed", "-1"],
    ["--temperature", "-1"],
    ["--top_p", "2"],
    ["--top_k", "many"],
    ["--topk", "3"],
    ["--speculate", "-1"],
    ["--speculate", "2", "--samples", "2"],
    ["--speculate", "2", "--repetition_penalty", "1.1"],
    ["--speculate", "2"],  # 100 tokens do not fit the context
    ["--draft", "somewhere"],
]


@pytest.mark.parametrize("words", BAD_REQUESTS)
def test_generate_refuses_what_makes_no_sense(
    trained: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(generate, [str(trained), *words], status=2)
    assert refused(capsys.readouterr().err, trained).startswith("error: ")
