"""Signed addresses: made just before a file is opened, never stored, because they expire within the hour."""

from __future__ import annotations

import threading

from curate.errors import CatalogError

# The Planetary Computer limits how often tokens may be asked for. One thread asks, the others find the answer in the
# SDK's cache; without this, every thread of a run asks at the same moment when a token runs out.
_ONE_AT_A_TIME = threading.Lock()


def sign(href: str, scheme: str | None) -> str:
    """The address to open now. ``scheme`` None gives ``href`` back as it is.

    ``planetary-computer`` adds a token, cached per container and renewed when less than a minute is left.

    Raises:
        CatalogError: no such scheme.
        OSError: the token service does not answer, also after several attempts.
    """
    if scheme is None:
        return href
    if scheme != "planetary-computer":
        raise CatalogError("catalog", f"signing scheme '{scheme}' is not known; there is: planetary-computer")
    import planetary_computer

    with _ONE_AT_A_TIME:
        try:
            return str(planetary_computer.sign_url(href))
        except OSError:
            raise
        except (ValueError, KeyError) as error:  # an answer that is no token: a login page of a proxy, for one
            raise OSError(f"its answer is no token ({type(error).__name__})") from error
