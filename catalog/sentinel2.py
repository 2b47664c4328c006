"""What a Sentinel-2 item says about its product, from whichever property or name the endpoint puts it in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PRODUCT = re.compile(r"^(S2[A-Z])_MSIL\w+?_(\d{8}T\d{6})_(?:N(\d{4})_)?R(\d{3})_(?:T(\d{2}[A-Z]{3})_)?(\d{8}T\d{6})?")
_DATATAKE = re.compile(r"^G(S2[A-Z])_(\d{8}T\d{6})_")
_DATASTRIP = re.compile(r"_S(\d{8}T\d{6})_")
_BASELINE = re.compile(r"^\s*(\d{1,2})(?:\.(\d{1,2}))?")


def product_parts(item: Mapping[str, Any]) -> re.Match[str] | None:
    """Match of the product's name: mission, sensing start, baseline, relative orbit, tile, time of processing."""
    for name in (item["properties"].get("s2:product_uri"), item["id"]):
        if name and (match := _PRODUCT.match(name)):
            return match
    return None


def baseline(item: Mapping[str, Any]) -> str | None:
    """Processing baseline as the item writes it (``05.09``), or from the product's name; None when nothing says."""
    properties = item["properties"]
    for name in ("s2:processing_baseline", "processing:version"):
        if properties.get(name):
            return str(properties[name])
    match = product_parts(item)
    return f"{match[3][:2]}.{match[3][2:]}" if match and match[3] else None


def baseline_number(text: str | None) -> tuple[int, int] | None:
    """A baseline as numbers that compare: ``05.09`` is (5, 9); None when it is not a baseline."""
    match = _BASELINE.match(text or "")
    return (int(match[1]), int(match[2] or 0)) if match else None


def datatake(item: Mapping[str, Any]) -> str | None:
    """Mission and start of the datatake, the same for all its tiles and baselines: ``S2A_20200302T102021``; or None."""
    properties = item["properties"]
    for name in ("s2:datatake_id", "eopf:datatake_id"):
        if match := _DATATAKE.match(str(properties.get(name) or "")):
            return f"{match[1]}_{match[2]}"
    product = product_parts(item)
    return f"{product[1]}_{product[2]}" if product else None


def datastrip_start(item: Mapping[str, Any]) -> str | None:
    """Start of the piece of the datatake that one station received: the two halves of a split tile differ in it."""
    for name in ("s2:datastrip_id", "eopf:datastrip_id"):
        if match := _DATASTRIP.search(str(item["properties"].get(name) or "")):
            return match[1]
    return None


def generated(item: Mapping[str, Any]) -> str:
    """When the product was made, as text that compares; empty when nothing says."""
    properties = item["properties"]
    for name in ("s2:generation_time", "processing:datetime", "landsat:product_generated"):
        if properties.get(name):
            return re.sub(r"\D", "", str(properties[name]))[:14]
    product = product_parts(item)
    return re.sub(r"\D", "", product[6]) if product and product[6] else ""
