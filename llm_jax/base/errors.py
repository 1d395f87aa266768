"""The ways in which a command ends when something is not as it must be.

Every error that a user can cause is one of these: its message is one line that says what must hold, what was
got and what to do, and its class carries the exit status. `command.run` turns it into that line and that
status. What the system says against reading or writing (OSError) is one line, too; anything else is a defect
of ours and keeps its traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROOF_FAILED = 6  # exit status of `verify` where what was to be shown did not hold
NO_MEMORY = 71  # exit status where the system had no memory, or no thread, for the work (EX_OSERR)
INPUT_OUTPUT = 74  # exit status where a file, or standard output, could not be read or written (EX_IOERR)


class UserError(Exception):
    """Base of all errors that are shown as one line; usage and configuration errors are raised as this class
    itself.
    """

    exit_status = 2


class DataError(UserError):
    """Text, tokens or a token store that cannot be used."""

    exit_status = 3


class CheckpointError(UserError):
    """A run directory or checkpoint that is missing, damaged, or belongs to something else."""

    exit_status = 4


class DivergedError(UserError):
    """Training went on producing non-finite numbers after a roll-back."""

    exit_status = 5


class InterruptedAndSaved(UserError):
    """A signal ended the work after it was saved; the same command goes on from there (EX_TEMPFAIL)."""

    exit_status = 75


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around all that writes a file whose name the user gave.

    Raises:
        UserError: the system lets it not be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {reason(error)}") from None


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of Python, numpy or XLA says that memory, or another thread, cannot be had."""
    said = str(error)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in said or "start new thread" in said


def reason(error: OSError) -> str:
    """Return what the system said, without numbers and names of files."""
    return error.strerror or str(error) or type(error).__name__
