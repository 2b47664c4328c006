"""Which number must be added to the stored values of a Sentinel-2 scene before they are reflectance.

From processing baseline 04.00 on, digital numbers carry an offset of 1000. We go by the baseline and not by the date,
because ESA has reprocessed older scenes with it, and by the provider, because the COGs of Earth Search's
``sentinel-2-l2a`` have mostly been shifted back already while their metadata still announce the offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from catalog import sentinel2
from catalog.scene import Radiometry

OFFSET_SINCE = (4, 0)
"""Baseline 04.00. https://sentiwiki.copernicus.eu/web/s2-processing"""
OFFSET_DN = -1000
"""``BOA_ADD_OFFSET`` of all bands."""
SCALE = 0.0001
SHIFTED_HOST = "sentinel-cogs.s3.us-west-2.amazonaws.com"
"""Files of Earth Search's ``sentinel-2-l2a``; https://github.com/Element84/earth-search/issues/9"""
NOT_REFLECTANCE = frozenset({"scl", "aot", "wvp", "visual", "tci", "cloud", "snow", "preview"})


def s2_radiometry(item: Mapping[str, Any], asset_key: str, href: str, collection_id: str) -> Radiometry:
    """Scale and offset of one reflectance asset of a Sentinel-2 item, with the reason.

    ``why`` begins with ``uncertain:`` where metadata contradict each other or are silent; then ``catalog.offsets``
    looks at the pixels. Classes, aerosol, water vapour and pictures carry no offset, whatever their metadata say
    (CDSE's say they do).
    """
    if asset_key.split("_")[0].removesuffix("-jp2").casefold() in NOT_REFLECTANCE:
        return Radiometry(why=f"{asset_key} is not reflectance: as stored")
    text = sentinel2.baseline(item)
    number = sentinel2.baseline_number(text)
    declared = _declared_offset_dn(item, asset_key)
    if number is None:
        return _without_baseline(text, declared)
    if number < OFFSET_SINCE:
        note = f"; the item's offset of {declared} is wrong" if declared else ""
        return Radiometry(SCALE, 0, f"baseline {text} is before 04.00: no offset{note}")

    is_jp2 = asset_key.endswith("-jp2") or urlsplit(href).path.endswith(".jp2")
    flag = None if is_jp2 else item["properties"].get("earthsearch:boa_offset_applied")
    if flag is True:
        return Radiometry(SCALE, 0, f"baseline {text}, boa_offset_applied is true: already shifted, no offset")
    if flag is False:
        # Both were seen: shifted pixels with the flag false, and truly unshifted ones.
        return Radiometry(SCALE, OFFSET_DN, f"uncertain: baseline {text}, boa_offset_applied is false: offset -1000")
    if not is_jp2 and (urlsplit(href).hostname == SHIFTED_HOST or "/sentinel-cogs/" in href):
        return Radiometry(
            SCALE, 0, f"uncertain: baseline {text} from sentinel-cogs without boa_offset_applied: taken as shifted"
        )
    if declared == 0:
        return Radiometry(SCALE, OFFSET_DN, f"uncertain: baseline {text}, but the item's offset is 0: offset -1000")
    return Radiometry(SCALE, OFFSET_DN, f"baseline {text} of {collection_id}: raw, offset -1000")


def _without_baseline(text: str | None, declared: int | None) -> Radiometry:
    said = f"baseline {text!r} cannot be read" if text else "no baseline"
    if declared is None:
        return Radiometry(SCALE, 0, f"uncertain: {said} and no offset in the item: none applied")
    return Radiometry(SCALE, declared, f"uncertain: {said}, offset {declared} as the item says")


def _declared_offset_dn(item: Mapping[str, Any], asset_key: str) -> int | None:
    """The offset the item's raster extension announces, in digital numbers; None when it announces none."""
    asset = item["assets"].get(asset_key, {})
    bands = asset.get("raster:bands") or asset.get("bands") or [{}]
    for holder, name in ((bands[0], "offset"), (bands[0], "raster:offset"), (asset, "raster:offset")):
        value = holder.get(name)
        if isinstance(value, int | float):
            return round(float(value) / SCALE)
    return None
