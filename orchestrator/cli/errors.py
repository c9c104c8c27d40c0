"""The one place where an error becomes a message on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typer import Exit

DONE = 0
SWEEP_FAILED = 1
REQUEST_WRONG = 2
INTERRUPTED = 130
READER_GONE = 141
"""What a shell reports for SIGPIPE: `saeq results ID | head` has not failed."""

OUR_PACKAGES = frozenset({"orchestrator", "jobs", "sae", "steering"})


class RequestError(ValueError):
    """A command was asked for something that cannot be; the message says what to do instead."""


def exit_code_of(command: Callable[[], Any]) -> int:
    """Run a command and answer with its exit code, having said on stderr what went wrong.

    Whatever the user can mend is one message without a traceback. Anything else is a bug of ours:
    one line, and the traceback in a file to send in.
    """
    try:
        return _code(command())
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return READER_GONE
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # rich's way to say so
            return READER_GONE
        raise
    except Exception as error:  # the outermost frame: nothing goes on after it
        return _explain(error)


def _code(answer: Any) -> int:
    return answer if isinstance(answer, int) and not isinstance(answer, bool) else DONE


def _explain(error: Exception) -> int:
    import typer
    from typer._click.exceptions import ClickException

    if isinstance(error, typer.Exit):
        return _exit_code(error)
    if isinstance(error, typer.Abort):
        _say("interrupted")
        return INTERRUPTED
    if isinstance(error, ClickException):
        _say(_usage(error))
        return REQUEST_WRONG
    if is_for_the_user(error):
        _say(str(error))
        return int(getattr(error, "exit_code", REQUEST_WRONG))
    _say(f"{_one_line(error)}\nthis is a bug: traceback in {_write_traceback(error)}")
    return SWEEP_FAILED


def _exit_code(error: Exit) -> int:
    return int(error.exit_code)


def is_for_the_user(error: BaseException) -> bool:
    """Whether the message is worded for the user: a typed error of ours, or the system's refusal.

    A bare ValueError or a library's own is not: nobody worded it, so it counts as a bug.
    """
    from orchestrator.store import StoreError

    if isinstance(error, StoreError | OSError):
        return True
    ours = type(error).__module__.split(".")[0] in OUR_PACKAGES
    return ours and isinstance(error, ValueError)


def _usage(error: Any) -> str:
    """A mistake on the command line in two lines: what, and where the help is."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "saeq"
    return f"{message}\n{path} --help shows what it takes"


def _one_line(error: BaseException) -> str:
    first = (str(error) or type(error).__name__).splitlines()[0]
    return f"{type(error).__name__}: {first}"


def _write_traceback(error: BaseException) -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="saeq-bug-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"saeq {' '.join(sys.argv[1:])}\n\n")
        file.writelines(traceback.format_exception(error))
        return file.name


def _say(message: str) -> None:
    sys.stderr.write(f"saeq: {message}\n")


def _drop_stdout() -> None:
    """Nobody reads any more: keep the interpreter's own flush at exit from complaining."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
