"""`awe-shell`: Python with the classes of all kinds at hand, at a prompt or for scripts."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import click

from ..core.errors import AweError, NoSuchFile, Unreadable
from . import options
from .messages import Messenger
from .runner import launch

PROMPT, CONTINUED = "awe> ", "...> "
BANNER = "awetools {}: Bias, Flat, Reduced, ... and pylab are here; help(Reduced) says more, Ctrl-D ends"


@click.command(
    "shell",
    short_help="Python with the classes of all kinds at hand.",
    context_settings={**options.SETTINGS, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[FILE [ARGUMENT]...]")
@click.option("-c", "text", metavar="TEXT", help="Run TEXT and stop.")
@click.option("--plain", is_flag=True, help="Python's own prompt, although IPython is there.")
@options.common
@click.pass_obj
def command(messenger: Messenger, /, arguments: tuple[str, ...], text: str | None, plain: bool) -> int:
    """Run the Python script FILE (- is standard input) or TEXT; without any, ask at the prompt awe>.

    What `from awetools import *` gives is there: a class for each kind of product
    (Bias, Flat, Reduced, ...) and type of raw frame (RawScience, ...), and pylab, which
    is matplotlib's. A comparison of attributes is a query, joined with & | and ~;
    iterated, it gives objects whose fields, measures and inputs are attributes:

    \b
      q = (Reduced.chip == 'ccd53') & (Reduced.filter == '841')
      x = [k.imstat.stdev for k in q]
      y = [k.flat.imstat.stdev for k in q]
      pylab.scatter(x, y)

    HotPix.get(night='2003-02-14', detector='A5382') makes the product if it must.
    help(Reduced) and help(q[0]) say more. Without a display pylab.savefig('x.png')
    keeps what was drawn. The prompt is IPython's where that is installed.

    An error of awetools is a message and its exit code; any other exception is a
    traceback of the script, and exit code 1.

    \b
    Examples:
      awe shell
      awe-shell -c "print(len(Reduced), Bias[0].lineage())"
    """
    _listen(messenger)
    if text is not None:
        return _run(text, "<text>", ["-c", *arguments], "", messenger)
    if arguments and arguments[0] != "-":
        path = Path(arguments[0])
        return _run(_script(path), str(path), list(arguments), str(path.resolve().parent), messenger)
    if not arguments and sys.stdin is not None and sys.stdin.isatty():
        return _ask(messenger, plain)
    script = options.read_input(terminal=bool(arguments))
    return _run(script, "<standard input>", list(arguments or ["-"]), "", messenger)


def _script(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NoSuchFile(f"{path}: there is no such file") from None
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None


class _Passing(logging.Handler):
    """What the package logs, as messages of the program."""

    def __init__(self, messenger: Messenger) -> None:
        super().__init__()
        self.messenger = messenger

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        say = self.messenger.note if record.levelno == logging.INFO else self.messenger.detail
        if record.levelno >= logging.WARNING:
            say = self.messenger.warning
        say(record.getMessage())


def _listen(messenger: Messenger) -> None:
    logger = logging.getLogger("awetools")
    logger.handlers[:] = [_Passing(messenger)]
    logger.setLevel(logging.DEBUG)
    logger.propagate = False


def _namespace() -> dict[str, Any]:
    """What scripts and the prompt find: a main module with the names of the package."""
    main = ModuleType("__main__")
    exec("from awetools import *", main.__dict__)
    sys.modules["__main__"] = main
    return main.__dict__


def _run(text: str | bytes, name: str, arguments: list[str], folder: str, messenger: Messenger) -> int:
    """Run a script as Python would; returns its exit code."""
    import linecache

    namespace = _namespace()
    # A main module has no file where there is none.
    if folder:
        namespace["__file__"] = name
    else:
        shown = text if isinstance(text, str) else text.decode(errors="replace")
        linecache.cache[name] = (len(shown), None, shown.splitlines(keepends=True), name)
    sys.argv, sys.path[0] = arguments, folder
    try:
        exec(compile(text, name, "exec"), namespace)
    except SystemExit as error:
        return _code_of(error, messenger)
    except BrokenPipeError:
        raise
    except AweError as error:
        messenger.error(error, _place(error, name))
        return error.exit_code
    except Exception as error:
        _show(error, messenger)
        return 1
    return 0


def _code_of(error: SystemExit, messenger: Messenger) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    messenger.failure(str(error.code))
    return 1


def _place(error: BaseException, name: str) -> str:
    """Where in the script it happened."""
    lines = [frame.lineno for frame in _frames(error) if frame.filename == name]
    return f"{name}, line {lines[-1]}" if lines else name


def _frames(error: BaseException) -> list[Any]:
    import traceback

    return list(traceback.extract_tb(error.__traceback__))


def _show(error: BaseException, messenger: Messenger) -> None:
    """The traceback, less the frames of this package."""
    text = _traceback(error)
    if messenger.log_json:
        messenger.failure(text)
    else:
        sys.stderr.write(text)


def _traceback(error: BaseException) -> str:
    import traceback

    whole = traceback.TracebackException.from_exception(error)
    one: traceback.TracebackException | None = whole
    while one is not None:
        one.stack[:] = [frame for frame in one.stack if not _is_ours(frame.filename)]
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "".join(whole.format())


def _is_ours(filename: str) -> bool:
    """Whether a file is of this package, or Python's console, which are not what the person wrote."""
    import code

    return filename.startswith(str(Path(__file__).resolve().parents[1])) or filename == code.__file__


def _theirs(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback less the frames of this package."""
    if traceback is None:
        return None
    rest = _theirs(traceback.tb_next)
    if _is_ours(traceback.tb_frame.f_code.co_filename):
        return rest
    return TracebackType(rest, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)


# The prompt


def _ask(messenger: Messenger, plain: bool) -> int:
    """Read, run and print until the end of input; returns the exit code."""
    from .. import __version__
    from ..face.pylab import pylab

    sys.path[0] = ""
    namespace = _namespace()
    pylab.draws_at_once(True)
    banner = BANNER.format(__version__)
    if not plain and _ipython(namespace, banner, messenger):
        return 0
    return _console(namespace, banner, messenger)


def _ipython(namespace: dict[str, Any], banner: str, messenger: Messenger) -> bool:
    """Ask with IPython, if it is there; whether it is."""
    try:
        from IPython.terminal.interactiveshell import TerminalInteractiveShell
        from IPython.terminal.prompts import Prompts, Token
        from traitlets.config import Config
    except ImportError:
        return False
    from ..face.completing import Completer

    class AwePrompts(Prompts):  # type: ignore[misc]
        def in_prompt_tokens(self) -> list[tuple[Any, str]]:
            return [(Token.Prompt, PROMPT)]

        def continuation_prompt_tokens(self, *_: Any, **__: Any) -> list[tuple[Any, str]]:
            return [(Token.Prompt, CONTINUED)]

        def out_prompt_tokens(self) -> list[tuple[Any, str]]:
            return []

    config = Config()
    config.TerminalInteractiveShell.prompts_class = AwePrompts
    config.TerminalInteractiveShell.confirm_exit = False
    config.TerminalInteractiveShell.enable_tip = False
    config.TerminalInteractiveShell.banner1 = f"{banner}\n"
    # Its other way to complete does not ask the objects.
    config.Completer.use_jedi = False
    shell = TerminalInteractiveShell.instance(config=config, user_ns=namespace)

    def tell(_shell: Any, kind: type, error: Exception, where: Any, tb_offset: int | None = None) -> None:
        if isinstance(error, AweError):
            messenger.error(error)
        else:
            shown = error.with_traceback(_theirs(where))
            shell.showtraceback((kind, shown, shown.__traceback__))

    shell.set_custom_exc((Exception,), tell)
    # Its own completion does not follow attributes of attributes.
    shell.Completer.custom_matchers.append(Completer(namespace).completions)
    shell.show_banner()
    shell.mainloop()
    return True


def _console(namespace: dict[str, Any], banner: str, messenger: Messenger) -> int:
    """Ask with Python's own console."""
    from code import InteractiveConsole

    class Console(InteractiveConsole):
        def showtraceback(self) -> None:
            error = sys.exc_info()[1]
            if isinstance(error, AweError):
                messenger.error(error)
            elif error is not None:
                _show(error, messenger)

    sys.ps1, sys.ps2 = PROMPT, CONTINUED
    _complete(namespace)
    try:
        Console(namespace, filename="<prompt>").interact(banner=banner, exitmsg="")
    except SystemExit as error:
        return _code_of(error, messenger)
    return 0


def _complete(namespace: dict[str, Any]) -> None:
    """Completion and history at the prompt, where there is readline."""
    import atexit
    from contextlib import suppress

    from ..core.settings import home_directory
    from ..face.completing import Completer

    try:
        import readline
    except ImportError:
        return
    history = home_directory() / "shell_history"
    readline.set_completer(Completer(namespace).complete)
    # What stands in brackets belongs to what is completed.
    readline.set_completer_delims(" \t\n`~!@#$%^&*()=+{}\\|;:'\",<>/?")
    readline.parse_and_bind("tab: complete")
    with suppress(OSError):
        readline.read_history_file(history)

    def keep() -> None:
        with suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)

    atexit.register(keep)


def main() -> None:
    """Run the program."""
    launch(command)
