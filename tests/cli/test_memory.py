"""Memory that cannot be had ends a command with one line and a status of its own."""

import pytest

from llm_jax.cli import command


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 2.00 MiB for an array"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 4096 bytes."),
        RuntimeError("can't start new thread"),
    ],
)
def test_too_little_memory_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def working() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        command.run(working, [])
    said = capsys.readouterr().err
    assert stop.value.code == 71
    assert said.startswith("error: not enough memory (")
    assert said.count("\n") == 1


def test_another_runtime_error_keeps_its_traceback() -> None:
    def working() -> None:
        raise RuntimeError("a defect of ours")

    with pytest.raises(RuntimeError, match="a defect of ours"):
        command.run(working, [])
