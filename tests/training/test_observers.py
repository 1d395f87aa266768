"""What shows or records a run never decides whether it lives: closed, full, gone, slow, failing observers."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from llm_jax.base.errors import InterruptedAndSaved, UserError
from llm_jax.base.json_lines import read_lines
from llm_jax.checkpoints.reader import read_about
from llm_jax.checkpoints.writer import Checkpoints, saved_steps
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, TrainConfig
from llm_jax.inference.decode import _row_keys
from llm_jax.language_model.model import LanguageModel
from llm_jax.runs.data import Materials
from llm_jax.runs.record import RunRecord
from llm_jax.runs.samples import check_prompt
from llm_jax.tokenization.plain import ByteTokenizer, CharacterTokenizer
from llm_jax.tokenization.protocol import Tokenizer, decode
from llm_jax.training import loop
from llm_jax.training.observers import Guard
from llm_jax.training.state import key_for

SAY = """
import os, sys
from llm_jax.base import terminal
{before}
terminal.open_output()
terminal.only_show()
for number in range(30):
    terminal.say(f"{{number}} Grüße \\ufffd" + "x" * 4000)
print("alive", file=sys.stderr)
"""


def said(outlet: str, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """A process that says much, its output going to `outlet` of a shell."""
    words = [sys.executable, "-c", SAY.format(before=before)]
    return subprocess.run(
        ["sh", "-c", f'"$@" {outlet}', "sh", *words],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        env=os.environ | environment,
    )


LOST = {
    "closed": (">&-", "", None),
    "full": ("> /dev/full", "", "No space left on device"),
    "a reader that left": ("| head -c 1", "", "Broken pipe"),
    "a reader that reads nothing": ("| sleep 5", "", "nobody reads it"),
    # A terminal whose other side is closed answers EIO.
    "a terminal that is gone": ("", "m, s = os.openpty(); os.dup2(s, 1); os.close(s); os.close(m)", "error"),
}


@pytest.mark.parametrize("name", LOST)
def test_output_that_nobody_gets_is_one_warning(name: str) -> None:
    outlet, before, reason = LOST[name]
    done = said(outlet, before)
    *warnings, last = done.stderr.splitlines()
    assert (done.returncode, last) == (0, "alive")
    assert len(warnings) == (reason is not None)
    assert reason is None or ("cannot be written" in warnings[0] and reason in warnings[0])


def test_a_terminal_that_cannot_say_a_character_gets_it_spelt() -> None:
    done = said("", PYTHONIOENCODING="ascii")
    assert done.stderr == "alive\n"
    assert done.stdout.startswith("0 Gr\\xfc\\xdfe \\ufffdxxx")
    assert len(done.stdout.splitlines()) == 30


def test_a_failing_observer_is_one_warning_and_ending_is_none_of_them() -> None:
    warnings: list[str] = []
    guard = Guard(warnings.append)
    for _ in range(3):
        for name in ("one", "two"):
            with guard(name):
                raise OSError(28, "No space left on device")
    reason = "failed: [Errno 28] No space left on device; the run goes on"
    assert warnings == [f"one {reason}", f"two {reason}"]
    with pytest.raises(KeyboardInterrupt), guard("three"):
        raise KeyboardInterrupt


def test_a_record_goes_on_where_it_can_and_takes_up_again_what_it_can(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").mkdir()
    (tmp_path / "config.json").mkdir()
    warnings: list[str] = []
    record = RunRecord(tmp_path, {}, 0, warnings.append)
    record.write(1, train_loss=float("nan"))
    record.write_sample(1, "text")
    (tmp_path / "samples.jsonl").rmdir()
    record.write_sample(2, "later \ud800")
    assert [entry["train_loss"] for entry in read_lines(tmp_path / "metrics.jsonl")] == [None]
    assert read_lines(tmp_path / "samples.jsonl") == [{"step": 2, "text": "later ?"}]
    assert [warning.split()[0] for warning in warnings] == ["config.json", "samples.jsonl"]


def test_a_line_that_a_full_disk_cut_off_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    record = RunRecord(tmp_path, {}, 0, warnings.append)
    record.write(1, a=1.0)
    opened = Path.open

    class Full:
        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, content: bytes) -> int:
            with opened(tmp_path / "metrics.jsonl", "ab") as file:
                return file.write(content[:5])

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda *_, **__: Full())
        record.write(2, a=2.0)
    record.write(3, a=3.0)
    assert [entry["step"] for entry in read_lines(tmp_path / "metrics.jsonl")] == [1, 3]
    assert len(warnings) == 1


@pytest.fixture
def no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that compute nothing: what is tested is what the loop does around them."""

    def run_steps(_: Config, state: Any, batches: list[int], *__: Any) -> Any:
        zeros = np.zeros(len(batches))
        return state, {"loss_sum": zeros, "weight": zeros + 1, "skipped": zeros}

    monkeypatch.setattr(loop, "run_steps", run_steps)


def run_loop(tmp_path: Path, around: dict[str, Any], **train: Any) -> tuple[list[str], dict[str, float]]:
    """The loop with these surroundings, six steps, evaluated every second one; gives warnings and score."""
    settings: dict[str, Any] = {
        "steps": 6,
        "eval_interval": 2,
        "save_interval": 100,
        "steps_per_dispatch": 1,
    } | train
    config = Config(train=TrainConfig(**settings))
    warnings: list[str] = []
    standard: dict[str, Any] = {
        "batch_at": lambda index: index,
        "evaluate": lambda _: {"validation_loss": 1.0},
        "on_steps": lambda *_: None,
        "on_evaluation": lambda *_: None,
        "warn": warnings.append,
    }
    state = {"params": {"head": jax.numpy.ones(3)}, "counters": {"step": 0, "batch": 0}}
    state = jax.tree.map(jax.numpy.asarray, state)
    with Checkpoints(tmp_path, keep=config.train.keep, about={}, report=warnings.append) as checkpoints:
        _, score = loop.train(config, checkpoints, state, loop.Callbacks(**(standard | around)))
    return warnings, score


def failing(*_: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_what_is_shown_comes_after_the_save_and_may_fail(tmp_path: Path, no_steps: None) -> None:
    saved: list[bool] = []

    def shown(step: int, *_: Any) -> None:
        saved.append((tmp_path / str(step)).is_dir())
        failing()

    warnings, _ = run_loop(tmp_path, {"on_steps": failing, "on_evaluation": shown})
    assert saved == [True, True, True]
    assert len(warnings) == 2
    assert read_about(tmp_path)["step"] == 6


def test_the_score_of_an_evaluation_still_chooses_the_best_checkpoint(tmp_path: Path, no_steps: None) -> None:
    scores = iter([0.5, 2.0, 3.0, 4.0])
    run_loop(tmp_path, {"evaluate": lambda _: {"validation_loss": next(scores)}}, steps=8)
    assert sorted(saved_steps(tmp_path)) == [2, 6, 8]


def test_an_evaluation_that_fails_leaves_the_save(tmp_path: Path, no_steps: None) -> None:
    scores = iter([None, 2.0, 3.0])

    def evaluate(_: Any) -> dict[str, float]:
        found = next(scores)
        return failing() if found is None else {"validation_loss": found}

    warnings, score = run_loop(tmp_path, {"evaluate": evaluate}, keep=3)
    assert ["the evaluation of step 2 failed" in warning for warning in warnings] == [True]
    assert score == {"validation_loss": 3.0}
    assert read_about(tmp_path, 2)["score"] is None
    assert read_about(tmp_path, 4)["score"] == 2.0


def test_a_save_is_due_by_time_too(tmp_path: Path, no_steps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def batch_at(index: int) -> int:
        now[0] += 25  # seconds that a step takes
        return index

    options = {"steps": 12, "eval_interval": 12, "keep": 12}
    run_loop(tmp_path / "off", {"batch_at": batch_at}, save_minutes=0, **options)
    assert saved_steps(tmp_path / "off") == [12]
    run_loop(tmp_path / "on", {"batch_at": batch_at}, save_minutes=1, **options)
    assert sorted(saved_steps(tmp_path / "on")) == [3, 6, 9, 12]


def test_a_signal_in_an_evaluation_ends_the_run_before_another_step(tmp_path: Path, no_steps: None) -> None:
    came: list[str] = []

    def evaluate(_: Any) -> dict[str, float]:
        came.append("SIGHUP")
        return {"validation_loss": 1.0}

    around = {"evaluate": evaluate, "stop_requested": lambda: came[0] if came else ""}
    with pytest.raises(
        InterruptedAndSaved, match=r"^Stopped by SIGHUP\. Step 2 is saved; run the same command to resume\.$"
    ):
        run_loop(tmp_path, around)


def a_material(tokenizer: Tokenizer, prompt: str, vocab_size: int, sample_tokens: int = 1) -> Any:
    train = TrainConfig(prompt=prompt, sample_tokens=sample_tokens)
    config = Config(model=ModelConfig(vocab_size=vocab_size), train=train)
    return Materials(config, SimpleNamespace(tokenizer=tokenizer))  # type: ignore[arg-type]


def test_a_prompt_is_checked_before_the_first_step() -> None:
    check_prompt(a_material(ByteTokenizer(), "The", 256))
    check_prompt(a_material(ByteTokenizer(), "", 256, sample_tokens=0))
    for prompt, vocab_size, message in (("", 256, "empty"), ("The", 100, "below model.vocab_size")):
        with pytest.raises(UserError, match=message):
            check_prompt(a_material(ByteTokenizer(), prompt, vocab_size))
    nothing: Any = SimpleNamespace(encode=lambda _: np.zeros(0, np.int32))
    with pytest.raises(UserError, match="must have a token"):
        check_prompt(a_material(nothing, "The", 256))

    def refuse(_: str) -> Any:
        raise ValueError("no such character")

    nothing.encode = refuse
    with pytest.raises(UserError, match="must be encodable: no such character"):
        check_prompt(a_material(nothing, "The", 256))


def test_ids_beyond_the_tokenizer_stand_for_nothing(tiny: ModelConfig, tiny_params: Any) -> None:
    for tokenizer in (ByteTokenizer(), CharacterTokenizer("ab")):
        assert decode(tokenizer, [97, tokenizer.vocab_size, 9999]) == decode(tokenizer, [97])
    # A vocabulary padded to a rounder number, of which a fresh model draws any id: 37, of which 2 are known.
    known: Any = SimpleNamespace(
        start_ids=(), encode=lambda _: np.array([0]), token_bytes=lambda id: b"ab"[id : id + 1], vocab_size=2
    )
    assert set(LanguageModel(tiny, tiny_params, known, {}).generate("a", max_new_tokens=40)) <= {"a", "b"}


def test_idle_devices_are_named_and_several_processes_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    loop.claim_device(lines.append)
    assert lines == [f"7 of 8 devices stay idle: the model trains on {jax.devices()[0]} alone"]
    with jax.debug_nans(True), pytest.raises(UserError, match="must be unset"):
        loop.claim_device(lines.append)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="must be one process"):
        loop.claim_device(lines.append)


def test_keys_are_of_one_kind_whatever_the_environment_says(tiny: ModelConfig) -> None:
    config = Config(model=tiny)
    before = np.asarray(jax.random.key_data(key_for(config, 1)))
    with jax.default_prng_impl("rbg"):
        after = np.asarray(jax.random.key_data(key_for(config, 1)))
        assert _row_keys(0, [[1]]).dtype == jax.random.key(0, impl="threefry2x32").dtype
    np.testing.assert_array_equal(before, after)
