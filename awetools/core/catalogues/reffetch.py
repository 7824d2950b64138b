"""Fetches the stars of a cone from a service of the Virtual Observatory; the only thing here that needs a network."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import BadValue, Truncated, Unavailable

# A service that says nothing for so long is taken as away.
PATIENCE_S = 120.0


def fetch_cone(url: str, ra_deg: float, dec_deg: float, radius_deg: float, target: Path) -> None:
    """Write what a Simple Cone Search service answers to a file, as the VOTable that it is.

    Raises Unavailable without pyvo, without an answer and where the service says no;
    Truncated where it gave only some of its stars; BadValue for what is no address.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise BadValue(f"{url!r:.200} is not the address of a service", hint="--fetch https://...")
    try:
        import requests
        from pyvo.dal import DALAccessError, scs
    except ImportError as error:
        raise Unavailable(
            f"fetching needs pyvo, which cannot be imported ({error})",
            hint="pip install 'awetools[vo]', or fetch the table otherwise and import the file",
        ) from None

    class Patient(requests.Session):
        """A session that does not wait for ever, and takes no answer that is marked as an error."""

        def request(self, *given: Any, **named: Any) -> Any:
            answer = super().request(*given, **{"timeout": PATIENCE_S, **named})
            answer.raise_for_status()
            return answer

    try:
        with warnings.catch_warnings():
            # What is cut is seen below; the tables of half the services break some rule of the standard.
            warnings.simplefilter("ignore")
            service = scs.SCSService(url, session=Patient())
            answer = service.search(pos=(ra_deg, dec_deg), radius=radius_deg, verbosity=3)
            cut = _is_cut(answer.votable)
            rows = len(answer)
            answer.votable.to_xml(str(target))
    except (DALAccessError, requests.RequestException, OSError, ValueError) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise Unavailable(
            f"{url}: no table of stars came: {said}", hint="try again later, or another service"
        ) from None
    if cut:
        raise Truncated(
            f"{url}: gave only {rows} stars of more within {radius_deg:g} deg", hint="a smaller radius"
        )


def _is_cut(votable: Any) -> bool:
    """Whether a service says that there are more stars than it gave."""
    infos = [info for resource in votable.resources for info in resource.infos]
    return any((info.name, str(info.value).upper()) == ("QUERY_STATUS", "OVERFLOW") for info in infos)
