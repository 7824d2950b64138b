"""The projections that astropy's WCSLIB computes: between plane coordinates and native angles."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ..errors import BadHeader
from .polynomial import Doubles, Pair
from .projections import Parameters, with_usual, word_of

_own = threading.local()


def checked(code: str, parameters: Parameters) -> None:
    """Raise BadHeader for parameters that make no projection."""
    _projection(code, parameters)


def native_of_plane(code: str, parameters: Parameters, x: Doubles, y: Doubles) -> Pair:
    """Native longitude and latitude of plane coordinates, all in rad; nan outside the projection."""
    made = _projection(code, parameters).prjx2s(*_flat(x, y))
    return _shaped(made, x.shape)


def plane_of_native(code: str, parameters: Parameters, longitude: Doubles, latitude: Doubles) -> Pair:
    """Plane coordinates of native longitude and latitude, all in rad; nan for what is not shown."""
    made = _projection(code, parameters).prjs2x(*_flat(longitude, latitude))
    return _shaped(made, longitude.shape)


def _flat(one: Doubles, other: Doubles) -> Pair:
    return np.degrees(np.ravel(one)), np.degrees(np.ravel(other))


def _shaped(made: Any, shape: tuple[int, ...]) -> Pair:
    one, other = (np.radians(np.asarray(value, np.float64)).reshape(shape) for value in made)
    return one, other


def _projection(code: str, parameters: Parameters) -> Any:
    """One of each thread, as it keeps its errors in itself."""
    known: dict[tuple[str, Parameters], Any] | None = getattr(_own, "projections", None)
    if known is None:
        known = _own.projections = {}
    if (code, parameters) not in known:
        known[code, parameters] = _made(code, parameters)
    return known[code, parameters]


def _made(code: str, parameters: Parameters) -> Any:
    from astropy.wcs import Prjprm

    made = Prjprm()
    made.code = code
    given = with_usual(code, parameters)
    if given:
        values = np.array(made.pv, np.float64)
        for number, value in given.items():
            values[number] = value
        made.pv = values
    try:
        made.set()
    # What is raised for wrong parameters is of a class that is not public in all versions.
    except Exception as error:
        raise BadHeader(f"projection {word_of(code, parameters)} cannot be: {error}") from None
    return made
