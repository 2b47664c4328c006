"""Files behind an address: GDAL's settings for every server, and reading again when an answer broke off."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from curate.telling import count

T = TypeVar("T")

log = logging.getLogger(__name__)

HTTP: dict[str, str] = {
    # Listing the folder around each file would cost more requests than reading it: 312 -> 84 in a trial with 24 files.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    # A server that accepts and then says nothing: without these a request waits for ever, and no retry comes to it.
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
}
"""GDAL's settings, also harmless for files on a disk."""

AFRESH = {"CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/"}
"""GDAL's setting to take nothing from memory: what it learnt from a broken answer it would keep."""

ATTEMPTS = 4
"""How often a file behind an address is tried."""
PAUSE_S = 0.5
"""Before the second attempt; four times as long before each further one."""


def persistent(read: Callable[[], T], href: str, failures: tuple[type[BaseException], ...]) -> T:
    """What ``read`` gives, called again with nothing remembered when it fails on a file behind an address.

    GDAL repeats requests that a server refuses, but not those that break off while a file is opened. A file that the
    server does not have (404) is not asked for again.

    Args:
        read: Opens and reads the file; a signature is made in it, so that it is fresh.
        href: Its address or path.
        failures: What a bad answer makes of itself. The last one is raised.
    """
    import rasterio

    for attempt in range(1, ATTEMPTS):
        try:
            with rasterio.Env(**(AFRESH if attempt > 1 else {})):
                return read()
        except failures as error:
            if "://" not in href or "response code: 404" in str(error):
                raise
            count("read_again")
            log.info("%s: reading again after %s", href.split("?")[0], type(error).__name__)
            time.sleep(PAUSE_S * 4 ** (attempt - 1))
    with rasterio.Env(**AFRESH):
        return read()
