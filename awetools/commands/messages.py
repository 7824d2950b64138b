"""What a program says on standard error, for people or, with --log-json, for programs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from ..core.errors import AweError

# A file name or header must not forge a message, or steer the terminal.
# Besides the controls: what ends a line, and what turns the direction of writing round.
CONTROLS = {
    code: ascii(chr(code))[1:-1]
    for code in (*range(32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}


@dataclass
class Messenger:
    """Says things in the name of a program; counts nothing, decides nothing."""

    program: str
    quiet: bool = False
    verbose: int = 0
    log_json: bool = False

    def error(self, error: Exception, about: str = "") -> None:
        """An error: its slug, its text, and the command that helps."""
        if isinstance(error, AweError):
            where = f"{about}: " if about and not error.message.startswith(about) else ""
            self._say("error", f"{error.slug}: {where}{error.message}", error.hint)
            return
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        self._say("error", f"bug: {about}{': ' if about else ''}{last}")
        self._say("error", "this is a bug in awetools; please report it (-vv shows where)")
        if self.verbose > 1:
            with suppress(OSError):
                sys.stderr.write(str(error) + "\n")

    def failure(self, text: str) -> None:
        """What went wrong in a program that was run; always shown."""
        self._say("error", text)

    def warning(self, text: str, hint: str = "") -> None:
        """A warning, and the command that leads on; always shown."""
        self._say("warning", f"warning: {text}", hint)

    def note(self, text: str, hint: str = "") -> None:
        """What a person may want to know, and the command that leads on; not with -q."""
        if not self.quiet:
            self._say("note", text, hint)

    def detail(self, text: str) -> None:
        """Only with -v."""
        if self.verbose and not self.quiet:
            self._say("detail", text)

    def _say(self, level: str, text: str, hint: str = "") -> None:
        if self.log_json:
            line = {"program": self.program, "level": level, "message": text} | (
                {"try": hint} if hint else {}
            )
            shown = json.dumps(line) + "\n"
        else:
            lines = [f"{self.program}: {text}", *([f"try: {hint}"] if hint else [])]
            shown = "".join(f"{line.translate(CONTROLS)}\n" for line in lines)
        # A message that cannot be shown must not stop the work, or change its exit code.
        with suppress(OSError):
            sys.stderr.write(shown)
            sys.stderr.flush()


@dataclass
class Failures:
    """What failed of many inputs: a cause that several share is said once, and counted at the end."""

    messenger: Messenger
    codes: list[int] = field(default_factory=list)
    _said: Counter[str] = field(default_factory=Counter)

    def add(self, error: AweError, about: str) -> None:
        """Say that something failed, with -v also where its cause was said before."""
        self.codes.append(error.exit_code)
        self._said[error.message] += 1
        if self._said[error.message] == 1 or self.messenger.verbose:
            self.messenger.error(error, about)

    def say_rest(self) -> None:
        """Say of how many more a cause was the same."""
        for cause, count in self._said.items():
            if count > 1 and not self.messenger.verbose:
                self.messenger.failure(f"{cause}: the same for {count - 1} more (-v names each)")
