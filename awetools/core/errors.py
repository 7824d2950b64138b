"""Every deliberate failure: one class, one exit code, one slug, one line of the manual.

The first line of each docstring is that line of the manual. Programs print an
error as ``awe-bias: SLUG: message`` and, where there is one, ``try: HINT``.
"""

from __future__ import annotations

from typing import ClassVar

# When several inputs of one run fail, the exit code is the first of these that occurred.
SEVERITY = (1, 8, 7, 2, 4, 6, 5, 3)


class AweError(Exception):
    """A deliberate failure; subclasses say which."""

    exit_code: ClassVar[int] = 1
    slug: ClassVar[str] = "bug"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            # Where Python itself shows the error, in a script or a notebook.
            self.add_note(f"try: {hint}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[AweError], message: str, hint: str) -> AweError:
    return kind(message, hint=hint)


# 2: usage, or a refusal to overwrite


class UsageError(AweError):
    """The command line does not make sense."""

    exit_code, slug = 2, "usage"


class UnknownName(AweError):
    """No parameter, field, kind or camera has this name; the nearest one is named."""

    exit_code, slug = 2, "unknown-name"


class BadValue(AweError):
    """A parameter's value is of the wrong type or out of its range."""

    exit_code, slug = 2, "bad-value"


class BadSettings(AweError):
    """A settings file or camera table cannot be read or does not make sense."""

    exit_code, slug = 2, "bad-settings"


class WouldOverwrite(AweError):
    """The output exists and awetools did not write it, or it was edited since; --force replaces it."""

    exit_code, slug = 2, "would-overwrite"


class Protected(AweError):
    """A raw frame, or a product that is published or judged ready, is not removed."""

    exit_code, slug = 2, "protected"


# 3: the question was answered "no"


class NotUpToDate(AweError):
    """--check: the product is missing or out of date."""

    exit_code, slug = 3, "not-up-to-date"


class OutsideLimits(AweError):
    """--strict: a measure is outside its limits, so nothing was written."""

    exit_code, slug = 3, "outside-limits"


# 4: bad input


class EmptyInput(AweError):
    """Standard input was empty: an earlier command of the pipe failed or found nothing."""

    exit_code, slug = 4, "empty-input"


class NoSuchFile(AweError):
    """An input does not exist, or is not a file."""

    exit_code, slug = 4, "no-such-file"


class Unreadable(AweError):
    """An input exists but cannot be read."""

    exit_code, slug = 4, "unreadable"


class NotFits(AweError):
    """The file is not FITS."""

    exit_code, slug = 4, "not-fits"


class Truncated(AweError):
    """The file ends before its header says it should."""

    exit_code, slug = 4, "truncated"


class NoImage(AweError):
    """The file holds no image where one is needed."""

    exit_code, slug = 4, "no-image"


class NoSuchExtension(AweError):
    """The file has no such extension or detector."""

    exit_code, slug = 4, "no-such-extension"


class BadHeader(AweError):
    """A header value that is needed is missing, malformed or contradicts another."""

    exit_code, slug = 4, "bad-header"


class UnknownCamera(AweError):
    """No camera table recognises the frame, or the frame's type cannot be told."""

    exit_code, slug = 4, "unknown-camera"


class WrongKind(AweError):
    """An input is of another kind than the one needed."""

    exit_code, slug = 4, "wrong-kind"


class TooFew(AweError):
    """There are fewer inputs than the recipe needs."""

    exit_code, slug = 4, "too-few"


class Mixture(AweError):
    """The inputs do not belong in one product: shape, detector, binning, readout or filter differ."""

    exit_code, slug = 4, "mixture"


class BadPixels(AweError):
    """The pixels cannot be used: all masked, all saturated, constant or not finite."""

    exit_code, slug = 4, "bad-pixels"


class NoRecord(AweError):
    """A product has no provenance record beside it, or the record cannot be read."""

    exit_code, slug = 4, "no-record"


class NoStore(AweError):
    """There is no store here, and the command needs one."""

    exit_code, slug = 4, "no-store"


# 5: no match


class NoMatch(AweError):
    """No valid calibration fits, a named calibration does not match, or a condition matches nothing."""

    exit_code, slug = 5, "no-match"


class OffGrid(NoMatch):
    """A frame has no pixel on the sky grid that is asked for."""

    slug = "off-grid"


class Flagged(AweError):
    """A named input is flagged or judged bad; --accept-flags takes a flagged one."""

    exit_code, slug = 5, "flagged"


class Withheld(AweError):
    """A product may not be published: it is not judged ready, an ancestor is bad or flagged, or under embargo."""

    exit_code, slug = 5, "withheld"


# 6: no solution


class NoSolution(AweError):
    """The inputs are fine, but the method found no answer."""

    exit_code, slug = 6, "no-solution"


# 7: something outside is unavailable; a retry may help


class Unavailable(AweError):
    """The disk is full, a directory cannot be written, or a service is away."""

    exit_code, slug = 7, "unavailable"


class IndexBusy(AweError):
    """The index stayed locked by another program for too long."""

    exit_code, slug = 7, "index-busy"


class BeingWritten(AweError):
    """A file is still being written, or being replaced by another program."""

    exit_code, slug = 7, "being-written"


# 8: integrity


class Integrity(AweError):
    """A hash does not match its record."""

    exit_code, slug = 8, "integrity"


class BadChecksum(AweError):
    """A FITS checksum does not match the data."""

    exit_code, slug = 8, "bad-checksum"


def all_errors() -> list[type[AweError]]:
    """Every error class, in the order of this file."""
    return [one for each in AweError.__subclasses__() for one in (each, *each.__subclasses__())]


def worst(codes: list[int]) -> int:
    """The exit code of a run of many inputs; 0 if nothing failed."""
    failed = [code for code in codes if code]
    return min(failed, key=SEVERITY.index, default=0)


def nearest(name: str, names: list[str]) -> str:
    """``" (nearest: X)"`` for a message about an unknown name, or ``""``."""
    import difflib

    # Another case is nearer than another letter.
    close = [one for one in names if one.casefold() == name.casefold()]
    close = close or difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f" (nearest: {close[0]})" if close else ""
