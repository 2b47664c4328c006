"""Signed addresses, with a token service on loopback."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from catalog.access import access
from catalog.scenes import to_scene
from catalog.signing import sign
from curate.errors import CatalogError, ReadError

# The SDK declares its models the way of pydantic 1. Goes when it has a release after 1.0.0.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

HREF = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/33/B04.tif"


class Tokens:
    """A token service: what it was asked, and for how long its tokens hold."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.seconds = 3600
        self.status = 200
        self.body: bytes | None = None
        self.expires: dict[int, float] = {}


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tokens]:
    from planetary_computer.sas import TOKEN_CACHE
    from planetary_computer.settings import Settings

    service = Tokens()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            service.asked.append(self.path)
            expiry = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=service.seconds)
            service.expires[len(service.asked)] = expiry.timestamp()
            token = {"msft:expiry": expiry.isoformat(), "token": f"sig={len(service.asked)}"}
            data = json.dumps(token).encode() if service.body is None else service.body
            self.send_response(service.status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(Settings.get(), "sas_url", f"http://127.0.0.1:{server.server_port}")
    TOKEN_CACHE.clear()
    yield service
    TOKEN_CACHE.clear()
    server.shutdown()
    server.server_close()


def test_many_threads_share_one_token(tokens: Tokens) -> None:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        signed = set(pool.map(lambda _: sign(HREF, "planetary-computer"), range(64)))
    assert signed == {f"{HREF}?sig=1"}
    assert tokens.asked == ["/sentinel2l2a01/sentinel2-l2"]


def test_a_token_that_runs_out_is_renewed(tokens: Tokens) -> None:
    tokens.seconds = 30
    assert sign(HREF, "planetary-computer") == f"{HREF}?sig=1"
    assert sign(HREF, "planetary-computer") == f"{HREF}?sig=2"


def test_what_needs_no_token_stays_as_it_is(tokens: Tokens) -> None:
    for href in ("s3://bucket/x.tif", "/data/x.tif", f"{HREF}?st=1&se=2&sp=r"):
        assert sign(href, "planetary-computer") == href
    assert sign(HREF, None) == HREF
    assert tokens.asked == []


def test_no_token_is_an_oserror_worth_another_try(tokens: Tokens) -> None:
    tokens.status = 403
    with pytest.raises(OSError, match="403"):
        sign(HREF, "planetary-computer")


def test_an_answer_that_is_no_token_is_an_oserror_too(tokens: Tokens) -> None:
    """The page of a proxy, say."""
    tokens.body = b"<html>please log in</html>"
    with pytest.raises(OSError, match=r"no token|Expecting value"):
        sign(HREF, "planetary-computer")
    tokens.body = b"{}"
    with pytest.raises(OSError, match="no token"):
        sign(HREF, "planetary-computer")


def test_an_item_whose_header_must_be_read_tells_that_there_is_no_token(
    tokens: Tokens, s2_item: Callable[..., dict[str, Any]]
) -> None:
    tokens.status = 403
    item = s2_item()
    for asset in item["assets"].values():
        asset["href"] = HREF
        del asset["proj:transform"]
    with pytest.raises(ReadError, match="no projection, and the token service gives none") as caught:
        to_scene(item, source="s2", collection="sentinel-2-l2a", bands=["red"], signing="planetary-computer")
    assert caught.value.retryable


def test_a_signing_scheme_that_nobody_knows_is_refused() -> None:
    with pytest.raises(CatalogError, match="signing scheme 'x' is not known"):
        sign("https://example.com/x.tif", "x")


def test_tokens_that_hold_a_second_never_run_out_in_a_long_run(tokens: Tokens) -> None:
    tokens.seconds = 1
    end = time.monotonic() + 2.2
    seen = set()
    while time.monotonic() < end:
        asked = time.time()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            urls = list(pool.map(lambda _: access(HREF, "planetary-computer").url, range(4)))
        for url in urls:
            number = int(url.rpartition("=")[2])
            assert tokens.expires[number] > asked
            seen.add(number)
        time.sleep(0.1)
    assert len(seen) > 2
