"""A published dataset copied to another place, in the order of publishing: a copy that opens is whole.

A marker says which manifest is being copied, so that a copy that was stopped goes on and another dataset is refused.
Every object is held against the manifest on its way: what is damaged at the source is never sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from chips.layout import COMMITTED, STORE, canonical
from chips.manifest import MANIFEST, Manifest, Written, needed_manifest
from chips.metadata import arrays_of
from chips.publish import commit_dataset
from chips.repository import SessionStorage, in_one_go
from chips.storage import Storage, open_storage
from chips.versions import FIRST, commit_as, make_latest, newest, open_dataset, version_path, version_url
from chips.write import JOURNAL, ROOT, is_published
from curate.errors import OutputError, StoreError
from curate.telling import count

MARKER = f"{JOURNAL}/copy.json"
"""Which manifest is being copied; goes once the root document of the copy is there."""

_AT_ONCE = 16
_IN_WORK_BYTES = 512 * 2**20
"""Objects on their way at a time, and how much memory they may take together."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What became of a copy."""

    url: str
    """The target."""
    version: int
    """As which version of the target it stands."""
    was_there: bool = False
    """Whether the target had it already, published."""
    sent: int = 0
    """Objects that were sent, without the documents that make the copy open."""
    sent_bytes: int = 0
    kept: int = 0
    """Objects of an earlier run that were read again and found right."""


def copy_dataset(
    url: str, to: str, *, version: int | None = None, on_progress: Callable[[int, int], None] = lambda done, of: None
) -> Copied:
    """Copy one version of a dataset; at an empty target it stands as version 1, after an earlier one as the next.

    Objects first, then the manifest, then the documents of the store with the root's last, then ``latest.json``. Killed
    anywhere, the target opens as it did before, and calling this again continues. The bytes are those of the source.

    Args:
        url: Folder or address of the dataset.
        to: Folder or address of the target: empty, begun by an earlier run, or with an earlier version of this dataset.
        version: Which one; None for the latest.
        on_progress: Called with the number of objects that are there, and of all.

    Raises:
        StoreError: There is no published dataset or no such version, or an object of it is missing or damaged.
        OutputError: The target holds something else, or the storage refuses.
    """
    dataset, source = open_storage(url), open_dataset(url, version)
    if not is_published(source):
        raise StoreError(source.url, "holds no published dataset; 'curate status' tells how far it is")
    manifest = needed_manifest(source)
    number = version or newest(dataset)
    target = _open_target(dataset, to)
    data = source.get(MANIFEST)
    assert data is not None  # it was read above
    earlier = {_marker(known): n for n, known in _manifests(dataset, number - 1)}
    stands, there, before = _stands(target, data, earlier)
    if before is not None:
        # A copy was stopped, and the dataset was updated since: that version becomes the one before this.
        copy_dataset(url, to, version=before, on_progress=on_progress)
        return copy_dataset(url, to, version=number, on_progress=on_progress)
    place = target if stands == FIRST else open_storage(version_url(target, stands), create=True)
    made = Copied(target.url, stands, was_there=there)
    if not there:
        made = _copy(source, place, manifest, data, made, on_progress)
    for marked in (target, place):
        if MARKER in marked.sizes(JOURNAL):
            marked.delete([MARKER])
            marked.sweep()
    if stands > newest(target):
        make_latest(target, stands, manifest.fingerprint)
    return made


def _open_target(dataset: Storage, to: str) -> Storage:
    if f"{to.rstrip('/')}/".startswith(f"{dataset.url.rstrip('/')}/"):
        raise OutputError(to, "lies in the dataset that is to be copied; choose another place")
    return open_storage(to, create=True)


def _marker(manifest: bytes) -> bytes:
    return canonical({"manifest": hashlib.sha256(manifest).hexdigest()})


def _manifests(dataset: Storage, newest: int) -> Iterator[tuple[int, bytes]]:
    """The manifests of a dataset's versions up to one; versions that were removed are passed over."""
    for number in range(FIRST, newest + 1):
        data = dataset.get(f"{version_path(number)}/{MANIFEST}".lstrip("/"))
        if data is not None:
            yield number, data


def _stands(target: Storage, manifest: bytes, earlier: Mapping[bytes, int]) -> tuple[int, bool, int | None]:
    """As which version the copy stands, whether it is published there, and which earlier one is to be finished first.

    ``earlier`` has the markers of the versions before it. Raises OutputError where the target holds another dataset.
    """
    last = 0
    if is_published(target):
        last = newest(target)
        there = dict(_manifests(target, last))
        same = next((number for number, known in there.items() if known == manifest), None)
        if same is not None:
            return same, True, None
        if last not in there or _marker(there[last]) not in earlier:
            raise OutputError(
                target.url,
                "holds another dataset, or a version of this one that is not an earlier one; choose another place",
            )
    folder = version_path(last + 1)
    begun, root, commit, known = (
        target.get(f"{folder}/{name}".lstrip("/")) for name in (MARKER, ROOT, COMMITTED, MANIFEST)
    )
    if (root is None and commit is None) or known is None:
        return last + 1, False, earlier.get(begun or b"")
    # Killed between the root of a version and latest.json.
    before = earlier.get(_marker(known))
    if known != manifest and before is None:
        raise OutputError(target.url, f"{folder} holds another dataset; remove it, or choose another place")
    return last + 1, known == manifest, before


def _copy(
    source: Storage,
    place: Storage,
    manifest: Manifest,
    data: bytes,
    made: Copied,
    on_progress: Callable[[int, int], None],
) -> Copied:
    """Send everything, the root document or the commit last."""
    _begin(place, _marker(data))
    documents = {written.key: _read(source, written) for written in manifest.metadata}
    objects = [written for key, written in manifest.objects().items() if key not in documents]
    into, begun = place, None
    if manifest.layout.store == "icechunk":
        begun, into = in_one_go(place, commit_as(made.version), arrays_of(documents), manifest.fingerprint)
    sizes = into.sizes()

    def send(written: Written) -> bool:
        if sizes.get(written.key) == written.size and into.digest(written.key) == (written.size, written.sha256):
            return False
        into.put(written.key, _read(source, written))
        count("written")
        count("written_bytes", written.size)
        return True

    sent = sent_bytes = 0
    largest = max((written.size for written in objects), default=1)
    pool = ThreadPoolExecutor(max(1, min(_AT_ONCE, _IN_WORK_BYTES // max(1, largest))), thread_name_prefix="copy")
    try:
        futures = {pool.submit(send, written): written for written in objects}
        for done, future in enumerate(as_completed(futures), start=1):
            written = futures.pop(future)
            if future.result():
                sent, sent_bytes = sent + 1, sent_bytes + written.size
            on_progress(done, len(objects))
    except BaseException:
        # Ctrl-C, or a damaged object: what is on its way is not waited for; without its root the copy does not open.
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    place.put(MANIFEST, data)
    if begun is not None and isinstance(into, SessionStorage):
        wanted = manifest.objects()
        into.delete(key for key in into.sizes(STORE) if key not in wanted)
        for key, document in documents.items():
            into.put(key, document)
        last, document = COMMITTED, commit_dataset(into, begun, manifest)
    else:
        last, document = ROOT, documents.pop(ROOT)
        for key, other in documents.items():
            place.put(key, other)
    if not place.put_first(last, document):
        raise OutputError(place.url, "another process has published another dataset here meanwhile")
    return Copied(made.url, made.version, False, sent, sent_bytes, len(objects) - sent)


def _begin(place: Storage, marker: bytes) -> None:
    """Mark an empty place, or find the marker of an earlier run there. Raises OutputError."""
    found = place.get(MARKER)
    if found is None:
        if names := place.top():
            shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
            raise OutputError(
                place.url, f"is not empty ({shown}) and no copy of a dataset that was begun; choose an empty place"
            )
        if place.put_first(MARKER, marker):
            return
        found = place.get(MARKER)
    if found != marker:
        raise OutputError(
            place.url,
            "holds an unfinished copy of another dataset; finish it with its own command, remove it, or choose another "
            "place",
        )


def _read(source: Storage, written: Written) -> bytes:
    data = source.get(written.key)
    if data is None or (len(data), hashlib.sha256(data).hexdigest()) != (written.size, written.sha256):
        what = "is missing" if data is None else "is not what was written"
        raise StoreError(
            source.url, f"{written.key} {what}, so nothing was published; 'curate check' tells what else is"
        )
    return data
