"""The ways in which a command ends when something is not as it must be.

Every error that a user can cause is one of these: its message is one line that says what must hold, what was
got and what to do, and its class carries the exit status. `command.run` turns it into that line and that
status; anything else is a defect of ours and keeps its traceback.
"""


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
