"""Object storage: the same as a folder, against a real S3 server; and what goes wrong there, in sentences."""

from __future__ import annotations

import http.client
import json
import pickle
import socket
import struct
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
import icechunk
import numpy as np
import pytest
import zarr

from chips.check import check
from chips.info import describe
from chips.layout import REPOSITORY
from chips.manifest import MANIFEST, Manifest, read_manifest
from chips.repository import CommitAs, SessionStorage, begin
from chips.repository import _place as place_of
from chips.storage import Storage, open_storage
from chips.versions import open_dataset
from chips.write import ROOT, BuildRef, finished_shards, is_published, journal, start_build
from curate import objects
from curate.errors import OutputError

Contents = Callable[[Path], Mapping[str, bytes]]


def content(storage: Storage) -> dict[str, bytes | None]:
    return {key: storage.get(key) for key in storage.sizes()}


@pytest.fixture
def remote(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr(objects, "PAUSE_S", 0.01)
    return open_storage(f"{bucket}/a folder/")


def test_objects_are_put_read_listed_and_removed(remote: Storage) -> None:
    large = np.random.default_rng(1).bytes(20_000_000)  # sent in parts
    remote.put("a/b.json", b"one")
    remote.put("a/b.json", b"two")
    remote.put("c", b"")
    remote.put("large", large)
    assert remote.get("a/b.json") == b"two"
    assert remote.get("nothing") is None
    assert remote.digest("nothing") is None
    assert remote.digest("a/b.json") == (3, "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3")
    assert remote.get("large") == large
    assert remote.sizes() == {"a/b.json": 3, "c": 0, "large": len(large)}
    assert remote.sizes("a") == {"a/b.json": 3}
    assert remote.top() == ("a", "c", "large")
    remote.sweep()
    remote.delete(["a/b.json", "a/b.json", "nothing", "large"])
    assert remote.top() == ("c",)
    remote.delete([])
    assert open_storage(remote.url).sizes() == {"c": 0}


def test_what_lies_beside_the_folder_is_neither_seen_nor_touched(bucket: str) -> None:
    whole = open_storage(bucket)
    whole.put("dataset-2/x", b"")
    whole.put("dataset", b"")
    assert open_storage(f"{bucket}/dataset").sizes() == {}
    assert open_storage(f"{bucket}/dataset").top() == ()


def test_a_folder_made_in_a_web_console_is_empty(bucket: str, s3_server: str) -> None:
    name = bucket.removeprefix("s3://")
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/{name}/new/", data=b"", method="PUT"), timeout=10)
    assert open_storage(f"{bucket}/new").sizes() == {}
    assert open_storage(f"{bucket}/new").top() == ()


def test_of_many_who_write_an_object_first_one_wins(remote: Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: remote.put_first("root", b"%d" % number), range(8)))
    assert sum(won) == 1
    assert remote.get("root") == b"%d" % won.index(True)
    assert remote.put_first("root", remote.get("root") or b""), "the same content again is no loss"


def test_a_dataset_in_object_storage_has_the_bytes_of_a_local_one(
    make_tiny: Callable[..., Any], contents: Contents, remote: Storage
) -> None:
    local = make_tiny("local")
    local.build()
    there = InBucket(make_tiny("unused"), remote)
    build = there.start()
    there.tiny.write(build, [0])
    assert not opens(remote)
    assert describe(remote).summary == "unfinished build: 1 of 3 shards"
    assert finished_shards(there.start()) == {0}
    there.tiny.write(build, [1, 2])
    there.publish(build)
    assert content(remote) == contents(local.folder)
    assert opens(remote)
    assert check(remote).problems == ()
    assert describe(remote).summary == describe(local.storage).summary


def test_a_shard_that_was_damaged_meanwhile_is_found(make_tiny: Callable[..., Any], remote: Storage) -> None:
    there = InBucket(make_tiny("unused"), remote)
    build = there.start()
    there.tiny.write(build)
    victim = next(iter(journal(build))).objects[0].key
    remote.put(victim, (remote.get(victim) or b"")[:-1] + b"!")
    assert finished_shards(build) == {1, 2}


def test_check_tells_what_was_changed_or_lost(make_tiny: Callable[..., Any], remote: Storage) -> None:
    there = InBucket(make_tiny("unused"), remote)
    build = there.start()
    there.tiny.write(build)
    there.publish(build)
    changed, lost = (shard.objects[0].key for shard in there.manifest().shards[:2])
    remote.put(changed, (remote.get(changed) or b"")[:-1] + b"!")
    remote.delete([lost])
    problems = check(remote).problems
    assert any(changed in problem and "was changed" in problem for problem in problems)
    assert any(lost in problem and "is missing" in problem for problem in problems)


def test_killed_while_publishing_the_store_is_closed_and_the_next_run_ends_in_the_same_bytes(
    make_tiny: Callable[..., Any], contents: Contents, remote: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = make_tiny("local")
    local.build()
    there = InBucket(make_tiny("unused"), remote)
    there.tiny.write(there.start())

    def killed(self: Storage, key: str, data: bytes) -> bool:
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "put_first", killed)
        with pytest.raises(InterruptedError):
            there.publish(there.start())
    assert MANIFEST in remote.sizes()
    assert not opens(remote)
    assert not is_published(remote)
    build = there.start()
    assert not [key for key in remote.sizes() if key.endswith("zarr.json")]
    assert finished_shards(build) == {0, 1, 2}
    there.publish(build)
    assert content(remote) == contents(local.folder)


def test_two_processes_that_publish_at_once_leave_one_dataset(make_tiny: Callable[..., Any], remote: Storage) -> None:
    there = InBucket(make_tiny("unused"), remote)
    build = there.start()
    there.tiny.write(build)
    before = content(remote)
    there.publish(build)
    root = remote.get(ROOT)
    # Another process that saw the store unpublished a moment ago: all of the journal, but the root is there.
    remote.delete([ROOT])
    for key, data in before.items():
        remote.put(key, data or b"")
    original = Storage.put_first

    def too_late(self: Storage, key: str, data: bytes) -> bool:
        self.put(key, data + b" ")
        return original(self, key, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "put_first", too_late)
        with pytest.raises(OutputError, match="another process has published another dataset here meanwhile"):
            there.publish(build)
    assert remote.get(ROOT) == (root or b"") + b" ", "what was there first is left as it was"


def test_two_processes_that_begin_at_once_do_not_mix_their_inputs(
    make_tiny: Callable[..., Any], remote: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chips import write

    there = InBucket(make_tiny("unused"), remote)
    monkeypatch.setattr(write, "open_build", lambda storage: None)  # it looked before the other one had begun
    there.start()
    with pytest.raises(OutputError, match="another process has begun another build here this moment"):
        write.start_build(remote, there.tiny.layout, "tiny-2", {"recipe.yaml": b"name: other\n"})
    assert write.read_document(remote, "recipe.yaml") == b"name: tiny\n"


# What goes wrong


def test_a_missing_bucket_is_told_and_not_taken_for_a_missing_object(remote: Storage) -> None:
    nowhere = open_storage("s3://there-is-no-such-bucket/x")
    for use in (lambda: nowhere.get("x"), lambda: nowhere.digest("x"), lambda: nowhere.put("x", b""), nowhere.sizes):
        with pytest.raises(OutputError, match=r"there is no such bucket\. Please create it, or correct its name"):
            use()


@pytest.mark.parametrize("value", ["127.0.0.1:9000", "minio", "https://"])
def test_an_endpoint_that_is_no_web_address_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", value)
    with pytest.raises(OutputError, match="the endpoint is no web address; set AWS_ENDPOINT_URL"):
        open_storage(bucket)


def test_an_endpoint_where_nobody_listens_is_told_soon(remote: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(OutputError, match=r"cannot be reached\. Please check the network, and AWS_ENDPOINT_URL"):
            open_storage(remote.url).get("x")


def test_no_credentials_and_half_of_them_are_told_before_anything_is_asked(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(OutputError, match="the credentials are not complete; set AWS_ACCESS_KEY_ID"):
        open_storage(bucket)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(OutputError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        open_storage(bucket)
    monkeypatch.setenv("AWS_PROFILE", "sso")
    with pytest.raises(OutputError, match=r"profile sso of ~/\.aws has no keys of its own; put those it stands for"):
        open_storage(bucket)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert open_storage(bucket).get("x") is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("gopher://x/y", "gopher:// is no storage that can be opened here; known are s3://, gs:// and az://"),
        ("s3://", "the address names no bucket; wanted is s3://bucket/folder"),
        ("s3:///folder", "the address names no bucket"),
        ("az://container/folder", "set AZURE_STORAGE_ACCOUNT_NAME"),
        ("s3://bucket/tiles#1", r"an address with \? or # in it names no folder"),
        ("s3://bucket/tiles?n=1", r"an address with \? or # in it names no folder"),
    ],
)
def test_an_address_that_cannot_be_opened_is_told(bucket: str, url: str, told: str) -> None:
    with pytest.raises(OutputError, match=told):
        open_storage(url)


def test_stores_of_google_and_azure_open_by_their_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert open_storage("gs://bucket/folder").url == "gs://bucket/folder"
    assert open_storage("az://container/folder").is_remote


@pytest.fixture
def strict(s3_server: str, bucket: str) -> Iterator[tuple[str, str]]:
    """The server asks for rights while the test runs; the keys of a user who may only read."""
    keys = {"aws_access_key_id": "test-key", "aws_secret_access_key": "test-secret", "region_name": "us-east-1"}
    users = boto3.client("iam", endpoint_url=s3_server, **keys)
    users.create_user(UserName=bucket)
    may = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    users.put_user_policy(UserName=bucket, PolicyName="read", PolicyDocument=policy)
    key = users.create_access_key(UserName=bucket)["AccessKey"]
    ask_for_rights_after(s3_server, 0)
    yield key["AccessKeyId"], key["SecretAccessKey"]
    ask_for_rights_after(s3_server, 10**9)


def ask_for_rights_after(server: str, requests: int) -> None:
    body, kind = str(requests).encode(), {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset-auth", body, kind), timeout=10)


def test_keys_that_are_unknown_wrong_or_may_not_write_are_told(
    strict: tuple[str, str], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match=r"refused \(InvalidAccessKeyId\). Please check that they are right and not"):
        open_storage(bucket).get("x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", strict[0])
    with pytest.raises(OutputError, match=r"refused \(SignatureDoesNotMatch\)") as caught:
        open_storage(bucket).get("x")
    told = str(caught.value) + repr(open_storage(bucket))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", strict[1])
    reader = open_storage(bucket)
    assert reader.get("x") is None
    assert reader.sizes() == {}
    for use in (
        lambda: reader.put("x", b""),
        lambda: reader.put("x", bytes(20_000_000)),
        lambda: reader.put_first("x", b""),
        lambda: reader.delete(["x"]),
        lambda: reader.delete(["x", "y"]),
    ):
        with pytest.raises(OutputError, match=r"permission was denied \(AccessDenied\)\. Please let these") as caught:
            use()
        told += str(caught.value)
    told += str(pickle.loads(pickle.dumps(caught.value)))
    for secret in (*strict, "test-secret", "127.0.0.1"):
        assert secret not in told


def test_what_an_s3_server_says_to_a_repository_is_told_as_to_a_plain_store(
    make_tiny: Callable[..., Any], strict: tuple[str, str], bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_for_rights_after(s3_server, 10**9)
    there = InBucket(make_tiny("unused", store="icechunk"), open_storage(f"{bucket}/ti%20ny"))
    build = there.start()
    there.tiny.write(build, [0])
    assert set(open_storage(bucket).folders()) == {"ti ny"}
    chunks = open_storage(f"{there.storage.url}/{REPOSITORY}/chunks")
    chunks.delete(chunks.sizes())
    assert finished_shards(build) == set()
    ask_for_rights_after(s3_server, 0)
    nothing = open_storage(f"{bucket}/nothing")
    with pytest.raises(OutputError, match=r"prepared: the credentials were refused \(InvalidAccessKeyId\)"):
        begin(nothing, CommitAs(), {})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", strict[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", strict[1])
    with pytest.raises(OutputError, match=r"prepared: permission was denied \(AccessDenied\)"):
        begin(nothing, CommitAs(), {})
    refused = OSError("dispatch failure\n|-> client error (Connect)\n|-> Connection refused (os error 111)")
    assert objects.reason(refused)[0] == "the storage cannot be reached"


def test_a_profile_of_the_aws_files_is_used(
    strict: tuple[str, str], bucket: str, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    (tmp_path / "no-aws-config").write_text(f"[profile lab]\nregion = us-east-1\nendpoint_url = {s3_server}\n")
    keys = f"aws_access_key_id = {strict[0]}\naws_secret_access_key = {strict[1]}\n"
    (tmp_path / "no-aws-credentials").write_text(f"[default]\naws_access_key_id = x\n[lab]\n{keys}")
    assert open_storage(bucket).get("x") is None
    (tmp_path / "no-aws-credentials").write_text("no section\n")
    with pytest.raises(OutputError, match="cannot be read as an AWS file"):
        open_storage(bucket)


# A bad day


@dataclass
class Gate:
    """Stands before the server and answers some requests badly: the first of every kind and object."""

    address: str
    trouble: Counter[str]
    requests: int = 0
    always: str = ""
    """A trouble that every request gets."""
    lose: str = ""
    """A part of a path: the answer to the first request that writes there is lost."""


@pytest.fixture
def gate(s3_server: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    server_host = urlsplit(s3_server).netloc
    seen: set[str] = set()
    state = Gate("", Counter())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.requests += 1
            key = f"{self.command} {self.path}"
            kinds = ("503", "429", "reset", "lost", "cut" if self.command == "GET" else "500", "none")
            kind = state.always or ("none" if key in seen else kinds[len(seen) % len(kinds)])
            if state.lose and state.lose in self.path and self.command == "PUT":
                kind, state.lose = "lost", ""
            seen.add(key)
            state.trouble[kind] += 1
            if kind in ("503", "429", "500"):
                self.send_response(int(kind))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            if kind == "silence":
                time.sleep(3)
                self.close_connection = True
                return
            link = http.client.HTTPConnection(server_host, timeout=30)
            link.request(self.command, self.path, body, dict(self.headers))
            answer = link.getresponse()
            data = answer.read()
            if kind == "lost":  # done, but the answer does not arrive
                self.connection.close()
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if kind == "cut" else data)
            self.close_connection = kind == "cut"

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state.address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", state.address)
        monkeypatch.setattr(objects, "PAUSE_S", 0.01)
        yield state
        server.shutdown()


def test_on_a_bad_day_the_bytes_are_the_same(
    make_tiny: Callable[..., Any], contents: Contents, bucket: str, gate: Gate
) -> None:
    local = make_tiny("local")
    local.build()
    there = InBucket(make_tiny("unused"), open_storage(f"{bucket}/tiny"))
    build = there.start()
    there.tiny.write(build)
    assert finished_shards(build) == {0, 1, 2}
    there.publish(build)
    assert content(there.storage) == contents(local.folder)
    assert check(there.storage).problems == ()
    assert {"503", "429", "reset", "lost", "cut", "500"} <= gate.trouble.keys(), gate.trouble


def test_on_a_bad_day_a_repository_has_one_commit(make_tiny: Callable[..., Any], bucket: str, gate: Gate) -> None:
    there = InBucket(make_tiny("unused", store="icechunk"), open_storage(f"{bucket}/tiny"))
    build = there.start()
    there.tiny.write(build)
    assert finished_shards(build) == {0, 1, 2}
    there.publish(build)
    opened = open_dataset(there.storage.url)
    assert check(opened).problems == ()
    assert isinstance(opened, SessionStorage)
    repository = icechunk.Repository.open(place_of(f"{there.storage.url}/{REPOSITORY}"))
    assert [made.message for made in repository.ancestry(branch="main")] == ["v1: 5 chips", "Repository initialized"]


@pytest.mark.parametrize("ref", ["branch.main", "tag.v1"])
def test_a_commit_whose_answer_got_lost_is_not_taken_for_that_of_another(
    make_tiny: Callable[..., Any], bucket: str, gate: Gate, ref: str
) -> None:
    there = InBucket(make_tiny("unused", store="icechunk"), open_storage(f"{bucket}/tiny"))
    gate.always = "none"
    build = there.start()
    there.tiny.write(build)
    gate.lose = f"refs/{ref}/ref.json"
    there.publish(build)
    assert gate.trouble["lost"] == 1
    assert check(open_dataset(there.storage.url)).problems == ()


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("503", r"the storage answered 503 Service Unavailable 3 times\. Please try again later"),
        ("silence", "the storage did not answer in time"),
        ("reset", "the connection to the storage broke off 3 times|the storage cannot be reached"),
    ],
)
def test_a_server_that_stays_bad_is_given_up_in_time(
    bucket: str, gate: Gate, monkeypatch: pytest.MonkeyPatch, trouble: str, told: str
) -> None:
    gate.always = trouble
    monkeypatch.setattr(objects, "RETRIES", 2)
    monkeypatch.setattr(objects, "SILENCE_TIMEOUT_S", 0.5)
    storage, began = open_storage(bucket), time.monotonic()
    with pytest.raises(OutputError, match=told):
        storage.get("x")
    assert gate.requests == 3
    assert time.monotonic() - began < 10
    with pytest.raises(OutputError, match="x cannot be written: the storage"):
        storage.put("x", b"")
    assert time.monotonic() - began < 20


# Helpers


def opens(storage: Storage) -> bool:
    """Whether zarr finds a group, as anybody would read it."""
    try:
        zarr.open_group(zarr.storage.ObjectStore(storage.store, read_only=True), path="chips.zarr", mode="r")
    except (FileNotFoundError, KeyError):
        return False
    return True


@dataclass(frozen=True)
class InBucket:
    """A tiny dataset that is built in object storage."""

    tiny: Any
    storage: Storage

    def start(self) -> BuildRef:
        return start_build(self.storage, self.tiny.layout, "tiny-1", {"recipe.yaml": b"name: tiny\n"})

    def publish(self, build: BuildRef) -> None:
        self.tiny.publish(build)

    def manifest(self) -> Manifest:
        found = read_manifest(self.storage)
        assert found is not None
        return found
