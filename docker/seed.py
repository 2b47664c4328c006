"""Fill an empty service with something to build: a simulated world, its scenes in the STAC API, and a bucket.

    python seed.py --folder /data --stac http://stac:8080 --bucket http://s3:5000/datasets

What is there already stays or is written again with the same content, so running it twice does no harm. For
demonstrations: the bucket is asked for without credentials, which only a server for tests grants.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

TIMEOUT_S = 60


def collections(world: Path) -> Iterator[dict[str, Any]]:
    """The collections of a static catalog, without links to files."""
    for path in sorted(world.glob("*/collection.json")):
        yield {**json.loads(path.read_text(encoding="utf-8")), "links": []}


def items(world: Path) -> Iterator[dict[str, Any]]:
    """The items of a static catalog, with absolute addresses of their files, as ``file:///…``."""
    for path in sorted(world.glob("*/*/*.json")):
        item = json.loads(path.read_text(encoding="utf-8"))
        for asset in item["assets"].values():
            if "://" not in asset["href"]:
                asset["href"] = (path.parent / asset["href"]).resolve().as_uri()
        yield {**item, "links": []}


def put(session: requests.Session, address: str, document: dict[str, Any]) -> None:
    """Add a document to a STAC API by the transaction extension, or take the place of the one that is there.

    Raises requests.HTTPError with what the server said.
    """
    answer = session.post(address, json=document, timeout=TIMEOUT_S)
    if answer.status_code == requests.codes.conflict:
        answer = session.put(f"{address}/{document['id']}", json=document, timeout=TIMEOUT_S)
    refuse_errors(answer)


def refuse_errors(answer: requests.Response) -> None:
    """requests.HTTPError, with the first words of the body, unless the answer is a good one."""
    if not answer.ok:
        raise requests.HTTPError(f"{answer.url} answered {answer.status_code}: {answer.text[:500]}", response=answer)


def load(world: Path, api: str) -> tuple[int, int]:
    """Put the collections and items of a world into a STAC API: how many of each."""
    with requests.Session() as session:
        n_collections = n_items = 0
        for collection in collections(world):
            put(session, f"{api}/collections", collection)
            n_collections += 1
        for item in items(world):
            put(session, f"{api}/collections/{item['collection']}/items", item)
            n_items += 1
    return n_collections, n_items


def make_bucket(address: str) -> None:
    """Make a bucket, ``http://server/name``, on a server that asks for no signature; one that is there stays."""
    answer = requests.put(address, timeout=TIMEOUT_S)
    if answer.status_code != requests.codes.conflict:
        refuse_errors(answer)


def simulate(folder: Path) -> Path:
    """The world of `curate demo` with its recipe below a folder, or the world that is there; where it lies."""
    world = folder / "world"
    if not (world / "recipe.yaml").exists():  # the last file that is written
        from flows.console import PlainConsole
        from flows.demo import demo_request

        demo_request(folder, PlainConsole())
    return world


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the world is written; all workers read it")
    parser.add_argument("--stac", help="address of a STAC API with the transaction extension")
    parser.add_argument("--bucket", help="address of the bucket to make, http://server/name")
    asked = parser.parse_args(arguments)
    world = simulate(asked.folder)
    try:
        if asked.stac:
            n_collections, n_items = load(world, asked.stac.rstrip("/"))
            print(f"{n_collections} collections and {n_items} items are in {asked.stac}")
        if asked.bucket:
            make_bucket(asked.bucket)
            print(f"the bucket {asked.bucket} is there")
    except requests.RequestException as error:
        sys.exit(f"seed: {error}")


if __name__ == "__main__":
    main()
