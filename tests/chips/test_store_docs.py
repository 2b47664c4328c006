"""Every snippet of docs/store.md runs as it stands there."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chips.metadata import documents

if TYPE_CHECKING:
    from tests.chips.conftest import Tiny

PAGE = Path(__file__).parents[2] / "docs" / "store.md"


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("code", snippets("python"), ids=lambda code: code.strip().splitlines()[-1][:40])
def test_the_python_of_the_page_runs_without_a_warning(tiny: Tiny, code: str) -> None:
    tiny.build()
    names: dict[str, Any] = {"url": str(tiny.folder / "chips.zarr"), "index": str(tiny.folder / "chips.parquet")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(code, str(PAGE), "exec"), names)
    for opened in ("ds", "tree", "raw"):
        if opened in names:
            names[opened].close()
    if "train" in names:
        assert names["train"].chip.to_numpy().tolist() == ["32631_0_1", "32631_3_1"]
    if "transform" in names:
        assert names["transform"] == (10, 0, 0.0, 0, -10, 160.0)
        assert names["crs"] == "EPSG:32631"
    if "shares" in names:
        assert names["shares"] == pytest.approx(tiny.records(0)[0].labels["fields"].shares)


def test_the_sql_of_the_page_runs(tiny: Tiny) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    tiny.build()
    (query,) = snippets("sql")
    rows = duckdb.sql(query.replace("chips.parquet", str(tiny.folder / "chips.parquet"))).fetchall()
    assert [row[:2] for row in rows] == [("test", 1), ("train", 1), ("val", 2)]


def test_the_page_names_the_version_and_every_coordinate_of_the_layout(tiny: Tiny) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "layout version **1**" in page
    names = {key.split("/")[-2] for key in documents(tiny.layout)} - {"chips.zarr", "wavelength_nm", "orbit"}
    assert {name for name in names if f"`{name}" not in page} == set()
