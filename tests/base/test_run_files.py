"""A run's readable files as strangers' files: what is no sound line is left out and counted, and no more."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llm_jax.base.json_lines import entry_of, read_lines, read_object, split_lines
from llm_jax.proofs.resume import last_logged_step
from llm_jax.reports import comparison_page, gather
from llm_jax.reports.run_page import RunFacts, run_page, run_pictures
from llm_jax.runs.record import forget_after, score_before

SOUND: dict[str, Any] = {
    "step": 7,
    "train_loss": 2.5,
    "averaged_steps": 20,
    "skipped": 0,
    "tokens_per_second": None,
    "grad_norms": {"head": 1.5, "blocks": [0.5, None]},
}
DEEP = "[" * 100_000 + "]" * 100_000
DAMAGED = {
    "half a line": b'{"step": 7, "train_lo',
    "half a character": '{"step": 7, "text": "é'.encode()[:-1],
    "no JSON": b"step 7",
    "not UTF-8": b'{"step": 7, "text": "\xff"}',
    "a list": b"[7]",
    "a number": b"7",
    "no step": b'{"train_loss": 2.5}',
    "a text for the step": b'{"step": "7"}',
    "a truth for the step": b'{"step": true}',
    "half a step": b'{"step": 7.5}',
    "a step before all": b'{"step": -1}',
    "a step after all": b'{"step": 99999999999999999999}',
    "a text for a number": b'{"step": 7, "train_loss": "low"}',
    "a truth for a number": b'{"step": 7, "train_loss": true}',
    "a list for a number": b'{"step": 7, "validation_loss": [1.5]}',
    "NaN": b'{"step": 7, "train_loss": NaN}',
    "Infinity": b'{"step": 7, "train_loss": -Infinity}',
    "beyond all floats": b'{"step": 7, "train_loss": 1e999}',
    "a huge whole number": b'{"step": 7, "skipped": 1' + b"0" * 400 + b"}",
    "more digits than Python reads": b'{"step": 7, "skipped": 1' + b"0" * 5000 + b"}",
    "a nest": f'{{"step": 7, "grad_norms": {DEEP}}}'.encode(),
    "a number for norms": b'{"step": 7, "grad_norms": 3}',
    "a text among norms": b'{"step": 7, "grad_norms": {"blocks": [1, "x"]}}',
    "a number for a text": b'{"step": 7, "text": 3}',
    "half a surrogate": b'{"step": 7, "text": "\\ud800"}',
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_line_is_left_out_and_counted_and_the_others_stay(tmp_path: Path, name: str) -> None:
    path, said = tmp_path / "metrics.jsonl", []
    sound = json.dumps(SOUND).encode()
    path.write_bytes(b"\n".join((sound, DAMAGED[name], b"", sound, DAMAGED[name])))
    assert read_lines(path, report=said.append) == [SOUND, SOUND]
    assert said == [f"2 damaged lines are left out of {path}"]
    # Going on with the run takes them out, says so, and gives every line its end.
    forget_after(path, 7, said.append)
    assert path.read_bytes() == sound + b"\n" + sound + b"\n"
    assert said[1:] == said[:1]
    assert last_logged_step(tmp_path) == 7


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_a_sample_keeps_the_characters_that_end_lines_elsewhere(tmp_path: Path, end: str) -> None:
    path = tmp_path / "samples.jsonl"
    line = {"step": 1, "text": f"one{end}two"}
    path.write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8", newline="")
    before = path.read_bytes()
    assert read_lines(path, needs="text") == [line]
    forget_after(path, 1, pytest.fail)
    assert path.read_bytes() == before


def test_lines_of_later_steps_are_forgotten_and_at_step_0_all(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step, kept in ((2, [1, 2]), (0, [])):
        path.write_text("".join(f'{{"step": {number}}}\n' for number in (1, 2, 3, 4)))
        forget_after(path, step, pytest.fail)
        assert [entry["step"] for entry in read_lines(path)] == kept


def test_the_score_before_the_first_step_is_believed_only_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for line, found in (
        ({"step": 0, "a": 1.5, "b": 2}, {"a": 1.5, "b": 2}),
        ({"step": 0, "a": 1.5, "b": None}, None),
        ({"step": 0, "a": 1.5}, None),
        ({"step": 1, "a": 1.5, "b": 2}, None),
    ):
        path.write_text(json.dumps(line) + "\n")
        assert score_before(tmp_path, ["a", "b"]) == found


def test_a_file_that_cannot_be_read_is_a_remark(tmp_path: Path) -> None:
    said: list[str] = []
    assert read_lines(tmp_path, report=said.append) == []  # a folder
    assert said == [f"{tmp_path} cannot be read: Is a directory"]
    assert read_lines(tmp_path / "none", report=pytest.fail) == []
    assert read_object(tmp_path) == {}


def facts_of(run: Path) -> RunFacts:
    """A report's facts as far as they come from files that anyone can read."""
    said: list[str] = []
    recorded = read_object(run / "environment.json")
    return RunFacts(
        name=str(run),
        steps=12,
        parameters=3,
        entries=read_lines(run / "metrics.jsonl", report=said.append),
        samples=gather.samples(run, said.append),
        baselines={"uniform": 3.0},
        passage=[],
        tokenizer=[],
        data=[],
        machine=gather._machine_facts(recorded),
        versions=gather._version_facts(recorded),
        command=gather._command(recorded.get("command")),
        settings=[],
        checkpoints=[],
        missing=said,
    )


LINES = [
    {
        "step": step,
        "train_loss": 3.5 - step / 9,
        "validation_loss": 3.4,
        "validation_standard_error": 0.1,
        "validation_bits_per_byte": 1.2,
        "grad_norm": 0.7 * step,
        "grad_norms": {"head": 0.3, "blocks": [0.1 * step, 0.2]},
        "tokens_per_second": 1e4,
        "mfu": 0.2,
        "text": "Once $x^2$.",
    }
    for step in range(1, 4)
]
MACHINE = {
    "versions": {"jax": "0.12.0", "numpy": "2.1"},
    "platform": "Linux",
    "processors": 2,
    "devices": ["cpu"],
    "command": ["llm_jax/train.py", "--train.steps", "12"],
    "git": {"commit": "0123456789abcdef", "modified": ["a.py"]},
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=5,
)


def with_value(tree: Any, draw: Callable[..., Any]) -> Any:
    """The tree with one value, somewhere in it, replaced by another."""
    if isinstance(tree, dict | list) and tree and draw(st.booleans() | st.just(value=True)):
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        key = draw(st.sampled_from(keys))
        copy = dict(tree) if isinstance(tree, dict) else list(tree)
        copy[key] = with_value(tree[key], draw)
        return copy
    return draw(json_values)


@st.composite
def damaged(draw: Callable[..., Any], content: Any, whole: bool) -> bytes:
    """A file of ours with a value replaced, a byte changed, or a piece cut out."""
    kind = draw(st.sampled_from(["value", "byte", "cut"]))
    if kind == "value":
        content = with_value(content, draw)
    lines = [content] if whole or not isinstance(content, list) else content
    data = "".join(json.dumps(line, ensure_ascii=True) + "\n" for line in lines).encode()
    at = draw(st.integers(0, max(0, len(data) - 1)))
    if kind == "byte":
        return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    return data[:at] + data[at + draw(st.integers(1, 30)) :] if kind == "cut" else data


@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(metrics=damaged(LINES, whole=False), environment=damaged(MACHINE, whole=True))
def test_whatever_the_records_hold_a_page_is_made_of_what_is_sound(
    tmp_path_factory: pytest.TempPathFactory, metrics: bytes, environment: bytes
) -> None:
    run = tmp_path_factory.mktemp("run")
    for name, content in (("metrics", metrics), ("samples", metrics)):
        (run / f"{name}.jsonl").write_bytes(content)
    (run / "environment.json").write_bytes(environment)
    facts = facts_of(run)
    assert run_page(facts, run_pictures(facts)).startswith("<!doctype html>")
    sides = [comparison_page.Side(name, 3, facts.entries, "", 12) for name in ("a", r"$\frac$")]
    assert len(comparison_page.comparison_pictures(sides, [])) <= 6
    forget_after(run / "metrics.jsonl", 2, lambda _: None)
    assert all(entry_of(line) for line in split_lines((run / "metrics.jsonl").read_bytes()))
