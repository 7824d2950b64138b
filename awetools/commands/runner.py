"""One click command as a program: exit codes, closed pipes, signals, messages.

click's own main() turns a closed pipe into exit 1 and prints errors in its own
words; so commands are run through their context, and every way to end is here.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import traceback
from collections.abc import Sequence

import click

from ..core.errors import AweError, Unavailable, UsageError
from .messages import Messenger
from .options import flush_output

INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143
# New objects that outlive their makers, between two searches for garbage.
COLLECT_AFTER = 100_000


class Terminated(BaseException):
    """SIGTERM arrived; unwinds like an interrupt, so that nothing half-written stays."""


def launch(command: click.Command, program: str = "") -> None:
    """Run a command as this process's program, and end the process with its exit code.

    program: its name; by default `awe-` and the command's. A shell that asks for
    completions gets them instead (completion.py).
    """
    # Imports make objects by the ten thousand, none of them garbage: do not look for it every 700.
    gc.set_threshold(COLLECT_AFTER)
    program = program or f"awe-{command.name}"
    _occupy_standard_streams()
    code = _answer_shell(command, program)
    if code is None:
        code = run(command, sys.argv[1:], program)
    try:
        flush_output()
    except BrokenPipeError:
        code = code or PIPE_CLOSED
    except Unavailable as error:
        if not code:
            Messenger(program).error(error)
        code = code or error.exit_code
    if code in (PIPE_CLOSED, Unavailable.exit_code):
        _discard_output()
    # Nor at the end, when all of it goes with the process.
    gc.freeze()
    sys.exit(code)


def _discard_output() -> None:
    # Nobody reads any more; keep Python from complaining about it at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _occupy_standard_streams() -> None:
    """Open standard streams that the shell closed, before a product's file takes their place.

    Standard output then fails like a full disk, because what was asked for is lost;
    messages that nobody wants to see are no failure.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, mode), number)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _answer_shell(command: click.Command, program: str) -> int | None:
    asked = os.environ.get(completion_variable(program))
    if not asked:
        return None
    from .completion import complete

    return complete(command, program, asked)


def completion_variable(program: str) -> str:
    """The environment variable through which a shell asks a program for completions."""
    return f"_{program.replace('-', '_').upper()}_COMPLETE"


def run(command: click.Command, arguments: Sequence[str], program: str) -> int:
    """Run a command and return its exit code; messages go to standard error."""
    _prepare()
    messenger = Messenger(program, log_json="--log-json" in arguments, verbose=_verbosity(arguments))
    try:
        with command.make_context(program, list(arguments), obj=messenger) as context:
            code = command.invoke(context)
        flush_output()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        messenger.note("; ".join(["interrupted", *getattr(error, "__notes__", ())]))
        return INTERRUPTED
    except Terminated as error:
        messenger.note("; ".join(["terminated", *getattr(error, "__notes__", ())]))
        return TERMINATED
    except BrokenPipeError:
        return PIPE_CLOSED
    except click.UsageError as error:
        messenger.error(UsageError(error.format_message(), hint=f"{program} --help"))
        return UsageError.exit_code
    except AweError as error:
        messenger.error(error)
        return error.exit_code
    except MemoryError:
        messenger.error(Unavailable("out of memory", hint="a smaller --memory, or -j 1"))
        return Unavailable.exit_code
    except OSError as error:
        if error.errno == errno.EPIPE:
            return PIPE_CLOSED
        messenger.error(Unavailable(str(error)))
        return Unavailable.exit_code
    except Exception:
        messenger.error(RuntimeError(traceback.format_exc()))
        return 1


def _prepare() -> None:
    # One thread a process: the same bits whatever the machine, and -j says how many processes.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    # File names are bytes; those that are not UTF-8 go through unharmed.
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape")
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(_signal: int, _frame: object) -> None:
    raise Terminated


def _verbosity(arguments: Sequence[str]) -> int:
    return sum(one.count("v") for one in arguments if one in ("-v", "-vv", "-vvv"))
