"""Addresses whose bytes do not all come."""

from __future__ import annotations

import base64
import http.server
import json
import re
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from attncli.batch import job as work
from attncli.batch import sources as fetch
from attncli.errors import InputError
from tests.batch.helpers import GOOD, failure_codes, write

pytestmark = pytest.mark.slow

LINE = GOOD.encode() + b"\n"


@contextmanager
def served(*pages: tuple[str, bytes, dict[str, str]], host: str = "127.0.0.1"):
    """A server on loopback: path, body and headers; the body may be less than the headers promise."""
    answers = {path: (body, headers) for path, body, headers in pages}
    heard: list[tuple[str, str | None]] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            heard.append((self.path, self.headers["Authorization"]))
            body, headers = answers.get(self.path, (b"", {}))
            self.send_response(302 if "Location" in headers else 200 if self.path in answers else 404)
            for name, value in (
                {} if "Transfer-Encoding" in headers else {"Content-Length": len(body)} | headers
            ).items():
                self.send_header(name, str(value))
            for name, value in (headers if "Transfer-Encoding" in headers else {}).items():
                self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer((host, 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"{host}:{server.server_port}", heard
        finally:
            server.shutdown()


SHORT = [
    ("short.ndjson", LINE * 4, {"Content-Length": str(len(LINE) * 10)}),
    ("chunked.ndjson", b"%x\r\n%s\r\n" % (len(LINE) * 4, LINE * 4), {"Transfer-Encoding": "chunked"}),
    ("mid.ndjson", b"%x\r\n%s" % (len(LINE) * 9, LINE * 4), {"Transfer-Encoding": "chunked"}),
    ("short.json", GOOD[:30].encode(), {"Content-Length": str(len(GOOD))}),
    ("chunked.json", b"%x\r\n%s" % (len(GOOD), GOOD[:30].encode()), {"Transfer-Encoding": "chunked"}),
]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize("page", SHORT, ids=[page[0] for page in SHORT])
def test_an_address_that_ends_too_early_has_failed(attn, tmp_path, page):
    name, body, headers = page
    with served((f"/{name}", body, headers), ("/whole.ndjson", LINE * 3, {})) as (at, _):
        done = attn("batch", f"http://{at}/{name}", f"http://{at}/whole.ndjson", "-o", "out")
        out = attn("batch", f"http://{at}/{name}", "-o", "-")
        with pytest.raises(InputError) as wrong:
            work.hash_content(f"http://{at}/{name}")

    assert done.status == 1
    assert "1 done, 1 failed" in done.err
    assert failure_codes(tmp_path / "out") == {f"http://{at}/{name}": "cannot-read"}
    assert f"http://{at}/{name} cannot be read: it ends too early" in done.err
    assert wrong.value.code == "cannot-read"
    assert out.status == 1
    assert json.loads(out.out.splitlines()[-1])["error"]["code"] == "cannot-read"
    assert not list((tmp_path / "out").glob(f"*{Path(name).stem}*"))


def test_a_whole_address_comes_whole_chunked_or_not(attn, tmp_path):
    body = LINE * 3000  # more than a buffer
    halves = [body[:70001], body[70001:]]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(half), half) for half in halves) + b"0\r\n\r\n"
    with served(("/a.ndjson", chunks, {"Transfer-Encoding": "chunked"}), ("/b.ndjson", body, {})) as (at, _):
        for name in "ab":
            with fetch.open_source(f"http://{at}/{name}.ndjson") as file:
                assert file.read() == body
            with fetch.open_source(f"http://{at}/{name}.ndjson") as file:
                assert list(file) == [LINE] * 3000
                assert file.total_bytes == (len(body) if name == "b" else 0)


def test_what_cannot_be_read_to_its_end_is_one_failure(attn, tmp_path):
    write(tmp_path, {"good.json": GOOD})
    (tmp_path / "a.ndjson").symlink_to("/proc/self/mem")  # opens, and then: Input/output error
    (tmp_path / "b.json").symlink_to("/proc/self/mem")
    if not Path("/proc/self/mem").exists():
        pytest.skip("a file that cannot be read, and can be opened, is needed")

    done = attn("batch", "a.ndjson", "b.json", "good.json", "-o", "out")
    out = attn("batch", "a.ndjson", "b.json", "good.json", "-o", "-")

    assert (done.status, out.status) == (1, 1)
    assert failure_codes(tmp_path / "out") == {"a.ndjson": "cannot-read", "b.json": "cannot-read"}
    assert "a.ndjson cannot be read: Input/output error" in done.err
    assert [json.loads(line).get("error", {}).get("code") for line in out.out.splitlines()] == [
        "cannot-read", "cannot-read", None,
    ]  # fmt: skip


def test_a_connection_that_is_reset_is_one_failure(attn, tmp_path, monkeypatch):
    write(tmp_path, {"good.json": GOOD})

    class Reset:
        length, lines = 1000, [LINE, LINE]

        def read1(self, size):
            if not self.lines:
                raise ConnectionResetError(104, "Connection reset by peer")
            return self.lines.pop()

        read = read1

        def __enter__(self):
            return self

        def __exit__(self, *what):
            pass

    monkeypatch.setattr(fetch, "open_web_address", lambda *words: Reset())
    done = attn("batch", "http://h/a.ndjson", "good.json", "-o", "out")

    assert done.status == 1
    assert failure_codes(tmp_path / "out") == {"http://h/a.ndjson": "cannot-read"}
    assert "http://h/a.ndjson cannot be read: Connection reset by peer" in done.err


@pytest.mark.parametrize("words", [["http://[", "http://"], ["http://[::1", "good.json"], ["@list"]])
def test_an_address_that_makes_no_sense_is_one_failure(attn, tmp_path, words):
    write(tmp_path, {"good.json": GOOD, "list": "http://[\ngood.json\n"})

    done = attn("batch", *words, "-o", "out")

    assert done.status == 1
    assert set(failure_codes(tmp_path / "out").values()) == {"cannot-read"}
    assert "failed[cannot-read]: http://[" in done.err
    assert (tmp_path / "out/good.json").exists() == ("good.json" in words or "@list" in words)


def test_a_password_is_told_to_its_own_server_alone(attn, tmp_path):
    with served(("/x.json", GOOD.encode(), {})) as (other, elsewhere):
        pages = ("/a.json", GOOD.encode(), {}), ("/b.json", b"", {"Location": f"http://{other}/x.json"})
        with served(*pages) as (at, heard):
            done = attn("batch", f"http://me:p%40ss@{at}/a.json", f"http://me:p@ss@{at}/b.json", "-o", "out")
    basic = "Basic " + base64.b64encode(b"me:p@ss").decode()

    assert (done.status, done.err.count("2 done, 0 failed")) == (0, 1)
    assert heard == [("/a.json", basic), ("/b.json", basic)]
    assert elsewhere == [("/x.json", None)]
    assert not re.search("ss@|p%40", (tmp_path / "out/manifest.ndjson").read_text())
    assert fetch.without_secrets("http://me:p@ss@h/x?to=a@b") == "http://h/x?to=a@b"
