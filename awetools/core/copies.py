"""Files that are copies of products, not products: written whole, known again, and replaced only if they are ours."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import AweError, Unavailable, UsageError, WouldOverwrite
from .files import make_directory, write_whole
from .record import sidecar
from .store import PRODUCT_ENDINGS

if TYPE_CHECKING:
    from .fits import CardTuple, Plane

# LDAC is FITS, too.
FITS_ENDINGS = (*PRODUCT_ENDINGS, ".ldac", ".cat")
_MARK = re.compile(r"\bawe-[a-z]+ ([0-9a-f]{16})(?: |\Z)")
# The card that says who made a copy; a product has AWEKIND instead.
COPY_CARD = "AWECOPY"
FORCE_HINT = "--force replaces it"


def write_copy(
    path: Path, planes: Sequence[Plane], cards: Sequence[CardTuple], maker: str, force: bool = False
) -> None:
    """Write a FITS file whole, marked as a copy that `maker` made.

    A copy that is as it was written is replaced, anything else only with `force`, a
    product never. Raises WouldOverwrite, UsageError, Unavailable.
    """
    from .fits import write_fits

    refuse_others(path, force)
    check_name(path)
    make_directory(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_fits(part, planes, [*cards, (COPY_CARD, maker, "a copy, not a product, made by this program")])
        part.replace(path)
    except Unavailable as error:
        # The person knows nothing of the name that it has until it is whole.
        raise Unavailable(error.message.replace(part.name, path.name), hint=error.hint) from None
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text_copy(
    path: Path,
    lines: Sequence[str],
    maker: str,
    force: bool = False,
    mark: str | None = "COMMENT   {}",
    mark_at: int = 0,
) -> None:
    """Write a text file whole, with a line that names `maker` and the hash of the others; raises as `write_copy`.

    mark: that line, as a comment of the form; mark_at: how many lines stand before it, 2 at
    most. Without a mark the file is not known again, and replaced by force only.
    """
    refuse_others(path, force)
    make_directory(path.parent)
    if mark is not None:
        named = mark.format(f"{maker} {_digest(_body(lines))}")
        lines = [*lines[:mark_at], named, *lines[mark_at:]]
    write_whole(path, _body(lines).encode("ascii", "replace"))


def check_name(path: Path) -> None:
    """Raise UsageError for a name that is not one of a FITS file that is not packed."""
    if path.suffix.lower() not in FITS_ENDINGS:
        raise UsageError(f"-o {path}: a copy is plain FITS, so its name must end in .fits, .fit or .fts")


def refuse_others(path: Path, force: bool = False) -> None:
    """Raise WouldOverwrite if a path holds anything but a copy of ours that nobody edited; a product always."""
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise WouldOverwrite(f"{path}: is a directory", hint=f"--out-dir {path}")
    if os.path.lexists(sidecar(path)):
        raise UsageError(f"{path}: is a product, and is not replaced by a copy", hint="-o ANOTHER.fits")
    if not force and not _is_ours(path):
        raise WouldOverwrite(
            f"{path}: exists, and awetools did not write it, or it was edited", hint=FORCE_HINT
        )


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        if path.suffix.lower() not in FITS_ENDINGS:
            lines = path.read_text(encoding="ascii").split("\n")[:-1]
            places = [place for place, line in enumerate(lines[:3]) if _MARK.search(line)]
            return bool(places) and _is_marked(lines, places[0])
        from .fits import open_fits

        with open_fits(path) as fits:
            return COPY_CARD in fits.hdus[0].header and not fits.verify_checksums()
    except (AweError, OSError, ValueError):
        return False


def _is_marked(lines: list[str], place: int) -> bool:
    """Whether the mark at a line has the hash of all others."""
    found = _MARK.search(lines[place])
    return found is not None and found[1] == _digest(_body([*lines[:place], *lines[place + 1 :]]))


def _body(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("ascii", "replace")).hexdigest()[:16]
