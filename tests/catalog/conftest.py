"""Tiny catalogs and the recorded items of real endpoints."""

from __future__ import annotations

import copy
import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import shapely

Item = dict[str, Any]


def _day(text: str) -> dt.datetime:
    """Midnight UTC of a date."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def _s2_item(number: int = 0, **changes: Any) -> Item:
    """A Sentinel-2 item as Planetary Computer writes it, one tile of 1 degree at 15 E 48 N, on day ``number``."""
    time = _day("2020-06-01") + dt.timedelta(days=number, hours=10)
    stamp = f"{time:%Y%m%dT%H%M%S}"
    box = changes.pop("bbox", [15.0, 48.0, 16.0, 49.0])
    properties = {
        "datetime": time.isoformat().replace("+00:00", "Z"),
        "platform": "Sentinel-2A",
        "eo:cloud_cover": float(10 * number),
        "s2:mgrs_tile": "33UWP",
        "s2:processing_baseline": "02.12",
        "s2:datatake_id": f"GS2A_{stamp}_012345_N02.12",
        "proj:epsg": 32633,
        **changes.pop("properties", {}),
    }

    def asset(name: str, size_m: int) -> Item:
        width = 109800 // size_m
        return {
            "href": f"./{name}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "proj:shape": [width, width],
            "proj:transform": [size_m, 0, 499980, 0, -size_m, 5400000],
            "roles": ["data"],
        }

    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": f"S2A_MSIL2A_{stamp}_R122_T33UWP_20201012T170741",
        "collection": "sentinel-2-l2a",
        "bbox": box,
        "geometry": shapely.geometry.mapping(shapely.box(*box)),
        "links": [],
        "assets": {"B04": asset("B04", 10), "B08": asset("B08", 10), "B05": asset("B05", 20), "SCL": asset("SCL", 20)},
        **changes,
        "properties": properties,
    }


def _write_catalog(folder: Path, items: list[Item], collection: str = "sentinel-2-l2a") -> Path:
    """A static catalog with one collection and one file an item; gives the path of its ``catalog.json``."""
    child = folder / collection
    child.mkdir(parents=True)
    links = []
    for item in items:
        (child / f"{item['id']}.json").write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./{item['id']}.json"})
    (child / "collection.json").write_text(
        json.dumps({"type": "Collection", "id": collection, "stac_version": "1.1.0", "links": links})
    )
    to_child = {"rel": "child", "href": f"./{collection}/collection.json"}
    (folder / "catalog.json").write_text(
        json.dumps({"type": "Catalog", "id": "tiny", "stac_version": "1.1.0", "description": "", "links": [to_child]})
    )
    return folder / "catalog.json"


@pytest.fixture(scope="session")
def s2_item() -> Callable[..., Item]:
    """Makes a Sentinel-2 item."""
    return _s2_item


@pytest.fixture(scope="session")
def write_catalog() -> Callable[..., Path]:
    """Writes a static catalog."""
    return _write_catalog


@pytest.fixture(scope="session")
def recorded(shared_data: Path) -> Callable[[str], list[Item]]:
    """Real items of a collection, as other projects recorded them from the endpoints: fresh copies at each call."""
    folders = (shared_data / "stac" / "items", shared_data.parent / "facts" / "tables" / "fixtures")
    items: dict[tuple[str, str], Item] = {}
    for folder in folders:
        if not folder.is_dir():
            pytest.skip(f"the recorded items are not here: no folder {folder.name} in ../shared")
        for path in sorted(folder.glob("*.json")):
            for item in _items_in(json.loads(path.read_text())):
                items.setdefault((path.name.split("__")[0], str(item["id"])), item)

    def of(collection: str) -> list[Item]:
        return [copy.deepcopy(item) for item in items.values() if item.get("collection") == collection]

    return of


def _items_in(document: Any) -> Iterator[Item]:
    if isinstance(document, dict) and document.get("type") == "Feature" and "assets" in document:
        yield document
    elif isinstance(document, dict):
        yield from (item for item in document.get("features", ()) if "assets" in item)
