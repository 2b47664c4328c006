"""The Recipe: what the user asked for, checked as a whole before any work starts.

It is made of the stages' own frozen option classes (`GridSpec`, `MaskSpec`, `TimeSpec` …), so that each option is
documented and checked in one place. This is the only folder that knows pydantic.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    field_validator,
    model_validator,
)

from catalog.collections import Collection, canonical_band, collection
from catalog.describe import DescribeSpec, described
from catalog.request import SearchSpec
from chips.audit import AuditSpec
from cube.align import CoregisterSpec, comparable_bands
from cube.coverage import CoverageSpec
from cube.mask import MaskSpec, which_layer
from cube.quality import QualityTable
from cube.radar import RadarSpec
from cube.resample import pixels_a_side
from cube.terrain import TerrainSpec
from cube.times import Interval, KeepSpec, TimeSpec, periods
from curate.errors import CatalogError
from labels.segments import RelabelSpec
from labels.spec import KINDS, DerivedSpec, LabelSpec, kind_of, reads
from publish.licence_spec import LicenceSpec
from tiling.grid import GridSpec
from tiling.sample_spec import AllCells, SampleStep
from tiling.split import SplitSpec
from tiling.split_rules import RULES, AnySplit, BalancedSplit, YearSplit, check_years, rule_of

NAME = r"^[a-z][a-z0-9_]*$"


class Model(BaseModel):
    """Frozen, no unknown keys, and the line under a field is its description in the schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _one_kind(value: Any) -> Any:
    if isinstance(value, Mapping):
        kind_of(value)
    return value


def _tag(value: Any) -> str:
    if isinstance(value, Mapping):
        return kind_of(value)
    return next((key for key, kind in KINDS.items() if isinstance(value, kind)), "")


def _one_rule(value: Any) -> Any:
    rule_of(value)
    return value


if TYPE_CHECKING:
    OneLabel = LabelSpec
    OneSplit = AnySplit
else:
    # The key that a label begins with (`vector`, `product` …) says which kind it is, and so which options it has.
    _kinds = reduce(or_, (Annotated[kind, Tag(key)] for key, kind in KINDS.items()))
    OneLabel = Annotated[_kinds, Discriminator(_tag), BeforeValidator(_one_kind)]
    # `rule` says which rule it is; without it, it is `blocks`.
    _rules = reduce(or_, (Annotated[kind, Tag(rule)] for rule, kind in RULES.items()))
    OneSplit = Annotated[_rules, Discriminator(rule_of), BeforeValidator(_one_rule)]


def _steps(value: Any) -> str:
    return "list" if isinstance(value, list | tuple) else "one"


_Step = Annotated[SampleStep, Field(discriminator="method")]
Samples = Annotated[Annotated[_Step, Tag("one")] | Annotated[tuple[_Step, ...], Tag("list")], Discriminator(_steps)]


class SourceSpec(Model):
    """One sensor or static layer: where its scenes come from and what becomes of them. A group in the store."""

    collection: str
    """Collection in the catalog, e.g. `sentinel-2-l2a`, `sentinel-1-rtc`, `cop-dem-glo-30`."""
    bands: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Names of the bands (`red`, `nir08`, `vv` …; `B04` works too). Empty: the usual bands of the collection."""
    describe: DescribeSpec | None = None
    """A collection that has no row in our tables, or plain raster files: what it holds, in a few lines."""
    catalog: str | tuple[str, ...] | None = None
    """Another catalog than the recipe's, for this source. With `describe` also a folder, a glob or a list of files."""
    search: SearchSpec = SearchSpec()
    """Which scenes are wanted at all."""
    orbit: Annotated[tuple[Literal["ascending", "descending"], ...], BeforeValidator(_as_tuple)] = ()
    """SAR: the orbit directions, kept apart along time. Empty: both, kept apart too."""
    mask: MaskSpec = MaskSpec()
    """What is hidden by the sensor's quality layer."""
    time: TimeSpec = TimeSpec(composite="monthly")
    """How the dates of a chip become the time axis. Static layers have none."""
    keep: KeepSpec = KeepSpec()
    """Which dates of a chip are good enough."""
    coregister: CoregisterSpec | None = None
    """Measure how far acquisitions lie off each other, or off another source, and undo it with one resample."""
    coverage: CoverageSpec | None = None
    """Sentinel-2: measure how much of each chip and of the region is seen, and how often (SC and TC)."""
    apply_mask: bool = False
    """For `series` and `single`: void the hidden pixels. By default the mask is only the layer beside them."""
    angle: bool = False
    """SAR: store the angle of incidence beside the backscatter, from the band of the collection that has it."""
    terrain: TerrainSpec = TerrainSpec()
    """Elevation: what is derived from it, and what stands where the model has no tile."""
    radar: RadarSpec = RadarSpec()
    """SAR: linear power or decibel, speckle filter, borders, and which passes are kept apart."""
    resolution_m: Annotated[float, Field(gt=0)] | None = None
    """Pixel size of this source in metres, on the same footprint. Empty: that of the grid."""
    size_m: Annotated[float, Field(gt=0)] | None = None
    """Side of this source's chips in metres, around the same centre: wider for context, or narrower. Empty: that of the
    grid."""
    resampling: Literal["nearest", "bilinear", "cubic", "average"] | None = None
    """Method for the measured bands where grids differ. Empty: by kind of band. Classes are never interpolated."""

    @property
    def table(self) -> Collection:
        """The collection's row in the table of collections, or what the recipe describes."""
        return collection(self.collection) if self.describe is None else described(self.collection, self.describe)

    @property
    def band_names(self) -> tuple[str, ...]:
        """Canonical names of the wanted bands, without the quality layer."""
        names = self.bands or self.table.default_bands
        return tuple(canonical_band(self.table, name) for name in names)

    @property
    def variable(self) -> str:
        """What the variable of the wanted bands is called in the store."""
        return self.table.variable(self.band_names)

    @property
    def mask_layer(self) -> tuple[str | None, QualityTable | None]:
        """Band that tells what is hidden and the table it is read by; (None, None) where the source has none."""
        band, table = which_layer(self.mask, self.table.quality, self.table.quality_table)
        return (None if band is None else canonical_band(self.table, band)), table

    @property
    def reference(self) -> str | None:
        """Name of the source that this one is aligned with; None when it is aligned with itself, or not at all."""
        named = None if self.coregister is None else self.coregister.reference
        return None if named in ("composite", "clearest") else named

    @property
    def centres_um(self) -> dict[str, float | None]:
        """Centre wavelength of each wanted band that measures reflected light, None where it is not known."""
        bands = (self.table.bands[name] for name in self.band_names)
        return {band.name: band.center_um for band in bands if band.kind == "reflectance"}

    @model_validator(mode="after")
    def _known_bands(self) -> SourceSpec:
        try:
            names = self.band_names
            self.variable  # noqa: B018 - raises where the bands measure different things
            self.mask_layer  # noqa: B018 - raises where the layer is not known
        except CatalogError as error:
            raise ValueError(error.why) from error
        if len(set(names)) != len(names):
            raise ValueError(f"bands {list(self.bands)} name a band twice; name each band once")
        for option, kind, called in (
            ("orbit", "sar", "SAR"),
            ("radar", "sar", "SAR"),
            ("angle", "sar", "SAR"),
            ("terrain", "elevation", "DEM"),
        ):
            asked = getattr(self, option) != type(self).model_fields[option].default
            if asked and self.table.kind != kind:
                raise ValueError(f"'{option}' is for {called}, and {self.collection} is {self.table.kind}; remove it")
        if self.angle and self.table.angle is None:
            raise ValueError(
                f"'angle' wants a band with the angle of incidence, and {self.collection} has none; describe a "
                "collection that has one, as {asset: …, kind: angle} among its bands"
            )
        if self.coregister is not None and self.mask_layer[0] is None:
            raise ValueError(f"'coregister' needs to know what is clear, and {self.collection} has no quality layer")
        layer = self.mask_layer[1]
        if self.coverage is not None and (layer is None or layer.name != "scl"):
            raise ValueError(
                "'coverage' is defined by the scene classification of Sentinel-2 (scl), and this source is not masked "
                "by it; remove it"
            )
        if self.coregister is not None and self.table.timeless:
            raise ValueError(f"'coregister' moves dates, and {self.collection} has none; remove it")
        self._check_picks()
        if self.table.kind == "classes":
            raise ValueError(f"{self.collection} is a land-cover product; ask for it under 'labels', not 'sources'")
        return self

    def _check_picks(self) -> None:
        """Raise ValueError where picked dates cannot be told clear from cloudy."""
        if self.table.timeless:
            return
        masked = self.mask_layer[0] is not None
        if self.time.pair == "clarity" and not masked:
            raise ValueError(f"'pair: clarity' needs to know what is clear, and {self.collection} has no quality layer")
        if self.time.pair == "clarity" and self.apply_mask:
            raise ValueError("'apply_mask' voids what 'pair: clarity' looks for; take one of them away")
        nearest = "pair: event" if self.time.pair == "event" else "phenology" if self.time.phenology else None
        if nearest is not None and masked and not self.keep.min_clear:
            raise ValueError(
                f"'{nearest}' takes the nearest dates that are clear enough; say what is enough, as keep: "
                "{min_clear: 0.9}"
            )


class StoreSpec(Model):
    """How the dataset is stored."""

    format: Literal["zarr", "icechunk"] = "zarr"
    """`zarr`: Zarr v3, sharded, in a folder. `icechunk`: the same in an Icechunk repository, where a build or an update
    is one commit with a tag and takes the room of what is new; for datasets that are updated on a schedule."""
    shard_chips: int | Literal["auto"] = "auto"
    """Chips per shard, the unit of work. `auto`: about 2048 x 2048 pixels, fewer when the series is long."""

    @field_validator("shard_chips")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 1 <= value <= 65536:
            raise ValueError(f"shard_chips is {value}; wanted 1 to 65536, or auto")
        return value


class Recipe(Model):
    """What the user asked for: when, which grid, which sources and labels, which splits, which store."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the dataset. Empty: the name of the area of interest."""
    time: str
    """Half-open interval in UTC, `2018-04-01/2018-10-01`: the first day counts, the last does not."""
    catalog: str = "planetary-computer"
    """A known name, the URL of a STAC API, or a path or URL of a static catalog or item collection."""
    grid: GridSpec = GridSpec()
    """The rule that lays chips."""
    sources: dict[str, SourceSpec] = Field(min_length=1)
    """One group of the store each, under the name given here."""
    labels: dict[str, OneLabel] = Field(default_factory=dict)
    """One variable of the group `label` each, under the name given here."""
    sample: Samples = AllCells()
    """Which chips of the area are taken: one sampler, or a list of which each draws from what the one before it took.
    By default all."""
    split: OneSplit = SplitSpec()
    """How chips are put into train, val and test; `rule` says by what (`curate splits` lists the rules)."""
    audit: AuditSpec = AuditSpec()
    """What splits may have in common before `curate check` fails."""
    store: StoreSpec = StoreSpec()
    """The format of the dataset and the size of its shards."""
    licence: LicenceSpec = LicenceSpec()
    """Which terms sources and labels may have, and the terms of files that no table knows."""
    report: bool = True
    """Whether a page with a map, pictures and tables (`report.html`) is written into the dataset."""
    reader: Literal["rasterio", "odc-stac", "stackstac"] = "rasterio"
    """Which library reads the pixels. All give the same ones; `rasterio` is the fastest."""
    unreadable: Literal["fail", "skip"] = "fail"
    """What a scene that cannot be read does: stop its shard (the default), or be left out and recorded."""

    _base: Path | str = PrivateAttr(default_factory=Path)

    @property
    def sample_steps(self) -> tuple[SampleStep, ...]:
        """``sample`` as a list."""
        return self.sample if isinstance(self.sample, tuple) else (self.sample,)

    @property
    def base(self) -> Path | str:
        """Folder, or its address in object storage, that relative paths start from: where the recipe lies."""
        return self._base

    def side_px(self, source: SourceSpec) -> int:
        """Side of a chip in pixels of a source.

        Raises:
            ValueError: The source's pixels do not divide the chip.
        """
        return pixels_a_side(self.size_m(source), source.resolution_m or self.grid.resolution_m)

    def size_m(self, source: SourceSpec) -> float:
        """Side of a chip of a source in metres."""
        return source.size_m or self.grid.side_m

    def pixel_m(self, source: SourceSpec) -> float:
        """Side of a pixel of a source in metres."""
        if self.grid.scheme == "webmercator" and source.resolution_m is not None:
            # Nobody writes all digits of a tile's 2445.98490512564 m.
            return self.size_m(source) / self.side_px(source)
        return source.resolution_m or self.grid.resolution_m

    @property
    def widest_m(self) -> float:
        """Side of the largest chip of the grid and all sources: the ground that a chip has pixels of."""
        return max(self.grid.side_m, *(self.size_m(source) for source in self.sources.values()))

    @model_validator(mode="after")
    def _sides(self) -> Recipe:
        for name, source in self.sources.items():
            try:
                self.side_px(source)
            except ValueError as error:
                raise ValueError(f"sources.{name}: {error}") from error
        return self

    @model_validator(mode="after")
    def _true_metres(self) -> Recipe:
        """Metres of Web Mercator are shorter than those of the ground: nothing told in metres may come of it."""
        if self.grid.scheme != "webmercator":
            return self
        for name, source in self.sources.items():
            wrong = [
                what
                for what, asked in (("terrain.derive", source.terrain.derive), ("coregister", source.coregister))
                if asked
            ]
            if wrong:
                raise ValueError(
                    f"sources.{name}: '{wrong[0]}' measures on the ground, and the metres of grid.scheme webmercator "
                    "are not those of the ground; take another grid, or remove it"
                )
        for name, label in self.labels.items():
            found = [
                what
                for what, there in (
                    ("targets: distance", "distance" in getattr(label, "targets", ())),
                    ("caption: tags", getattr(label, "caption", None) == "tags"),
                    ("lines as wide as they are", getattr(label, "lines", "none") != "none"),
                )
                if there
            ]
            if found:
                raise ValueError(
                    f"labels.{name}: '{found[0]}' goes by metres, and those of grid.scheme webmercator are not those "
                    "of the ground; take another grid, or do without"
                )
        return self

    @model_validator(mode="after")
    def _times(self) -> Recipe:
        for name, source in self.sources.items():
            try:
                periods(self.interval, source.time)
            except ValueError as error:
                raise ValueError(f"sources.{name}: {error}") from error
        return self

    @model_validator(mode="after")
    def _years(self) -> Recipe:
        """The years of the splits fit the time and the time axes of the sources."""
        if not isinstance(self.split, YearSplit):
            return self
        dated = {name: source.time for name, source in self.sources.items() if not source.table.timeless}
        windows = {
            name: [(step.start, step.end) for step in periods(self.interval, time)] for name, time in dated.items()
        }
        composites = [name for name, time in dated.items() if time.composite is not None]
        try:
            check_years(self.split, (self.interval.start, self.interval.end), windows, composites)
        except ValueError as error:
            raise ValueError(f"split.years: {error}") from error
        return self

    @model_validator(mode="after")
    def _aligned(self) -> Recipe:
        for name, source in self.sources.items():
            if (reference := source.reference) is None:
                continue
            other = self.sources.get(reference)
            if other is None or other is source:
                others = [one for one in self.sources if one != name]
                what = "the source itself" if other is source else "no source of the recipe"
                raise ValueError(
                    f"sources.{name}: coregister.reference is {reference!r}, which is {what}; wanted 'composite', "
                    f"'clearest'{' or another source: ' if others else ''}{', '.join(others)}"
                )
            for which, one in ((name, source), (reference, other)):
                if one.table.kind != "optical":
                    raise ValueError(
                        f"sources.{name}: coregister.reference is {reference!r}, but {which} is {one.table.kind}; "
                        "wanted two optical sources"
                    )
            if not comparable_bands(source.centres_um, other.centres_um):
                raise ValueError(
                    f"sources.{name}: none of its bands ({', '.join(source.band_names)}) looks at the same light as "
                    f"one of {reference} ({', '.join(other.band_names)}), so they cannot be aligned; ask for such a "
                    "band, red or nir if there is one"
                )
            chain = [name]
            while (following := self.sources[chain[-1]].reference) is not None and following in self.sources:
                chain.append(following)
                if following in chain[:-1]:
                    raise ValueError(
                        f"sources.{name}: coregister goes round in a circle, {' -> '.join(chain)}; wanted one source "
                        "at its end that is aligned with itself, or not at all"
                    )
        return self

    @property
    def label_order(self) -> tuple[str, ...]:
        """Names of the labels, each after those that it is made from."""
        order: list[str] = []
        wanted = dict.fromkeys(self.labels)
        while wanted:
            ready = [name for name in wanted if not self._label_needs(name) & wanted.keys()]
            if not ready:
                raise ValueError(f"labels {', '.join(wanted)} are made from each other in a circle; take one out of it")
            order += ready
            for name in ready:
                del wanted[name]
        return tuple(order)

    def _label_needs(self, name: str) -> set[str]:
        """The labels that a label is made from; it may name a variable of theirs, ``<label>_<part>``."""
        needs = set()
        for read in reads(self.labels[name]):
            owners = [label for label in self.labels if read == label or read.startswith(f"{label}_")]
            if not owners:
                raise ValueError(f"labels.{name}: there is no label {read!r}; found {', '.join(self.labels)}")
            needs.add(max(owners, key=len))
        return needs

    @model_validator(mode="after")
    def _labels(self) -> Recipe:
        self.label_order  # noqa: B018 - raises where a label is missing or they run in a circle
        for name, label in self.labels.items():
            if isinstance(label, RelabelSpec) and label.image not in self.sources:
                raise ValueError(
                    f"labels.{name}: there is no source {label.image!r} to segment; found {', '.join(self.sources)}"
                )
            if isinstance(label, RelabelSpec) and self.size_m(self.sources[label.image]) != self.grid.side_m:
                side_m = self.size_m(self.sources[label.image])
                raise ValueError(
                    f"labels.{name}: the chips of source {label.image!r} are {side_m:g} m wide and those of "
                    f"the label {self.grid.side_m:g} m, so their pixels are not the same ground; segment a source "
                    "without size_m"
                )
        if isinstance(self.split, BalancedSplit):
            drawn = [name for name, one in self.labels.items() if not isinstance(one, DerivedSpec)]
            if self.split.label not in drawn:
                why = "is made from other labels" if self.split.label in self.labels else "is no label of the recipe"
                raise ValueError(
                    f"split.label is {self.split.label!r}, which {why}; wanted one that is drawn"
                    f"{': ' if drawn else ', and the recipe has none'}{', '.join(drawn)}"
                )
        return self

    @model_validator(mode="after")
    def _licensed(self) -> Recipe:
        known = {*self.sources, *self.labels}
        if strange := [name for name in self.licence.of if name not in known]:
            names = ", ".join((*self.sources, *self.labels))
            raise ValueError(f"licence.of: there is no source or label {strange[0]!r}; found {names}")
        return self

    @property
    def interval(self) -> Interval:
        """``time`` as two UTC instants."""
        return Interval.parse(self.time)

    @property
    def fingerprint(self) -> str:
        """Hash of all that was asked; the same for the same recipe whatever the order or spelling of its YAML."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @field_validator("sample", mode="before")
    @classmethod
    def _sampled(cls, value: Any) -> Any:
        if isinstance(value, list) and not value:
            raise ValueError("the list is empty; wanted a sampler in it, or leave the key out")
        return value

    @field_validator("time")
    @classmethod
    def _interval(cls, value: str) -> str:
        Interval.parse(value)
        return value

    @field_validator("sources", "labels")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        wrong = [name for name in value if not re.match(NAME, name) or name in ("label", "chip")]
        if wrong:
            raise ValueError(
                f"name {wrong[0]!r} cannot be a name in the store; wanted small letters, digits and _, "
                "starting with a letter, and neither 'label' nor 'chip'"
            )
        return value

    def located(self, base: Path | str) -> Recipe:
        """The same recipe with relative paths starting from ``base``; text is an address in object storage."""
        copy = self.model_copy()
        copy._base = base
        return copy

    def file(self, value: str) -> str:
        """A file of the recipe as an absolute path or an address; a URL comes back as it is."""
        if value.startswith("file://"):
            return unquote(urlsplit(value).path)
        if "://" in value:
            return value
        if isinstance(self._base, str) and not value.startswith("/"):
            scheme, bucket, folder = urlsplit(self._base)[:3]
            return f"{scheme}://{bucket}{posixpath.normpath(posixpath.join('/', folder, value))}"
        return str((Path(self._base) / value).absolute())

    def path(self, value: str) -> str:
        """A path of the recipe as an absolute path; URLs and known catalog names come back as they are."""
        if re.fullmatch(r"[a-z0-9-]+", value) and (isinstance(self._base, str) or not (self._base / value).exists()):
            return value
        return self.file(value)


def schema() -> dict[str, Any]:
    """JSON Schema of a recipe, for editors and for forms."""
    document = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "curate recipe", **document}
