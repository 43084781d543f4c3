"""Addresses: how much is read, how long it is waited for, where they may lead, and what is kept of their secrets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from attncli.batch import address_limits, sources, web_addresses
from attncli.batch.address_limits import AddressLimits, parse_max_size, parse_max_time
from attncli.batch.addresses import hide_secrets, lacks_secret, without_secrets
from attncli.errors import InputError, OptionError
from tests.batch.helpers import GOOD, failure_codes, lines, names, write
from tests.batch.test_addresses_cut_short import served

pytestmark = pytest.mark.slow

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@contextmanager
def answering(start: bytes, again: bytes = b"", pause: float = 0.0) -> Iterator[str]:
    """A server on loopback that answers with bytes, and goes on with others for as long as anybody listens."""

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(start)
            while again:
                connection.sendall(again)
                time.sleep(pause)

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


# ── size ─────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["x.json", "x.ndjson", "x.npz"])
@pytest.mark.parametrize(
    ("start", "again"),
    [
        (HEAD + b"\r\n", b" " * 65536),
        (HEAD + b"Content-Length: 100000000000\r\n\r\n", b" " * 65536),
        (CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
        (HEAD + b"\r\n", (b"[[1, 2], [3, 4]]" + b" " * 50_000 + b"\n")),
    ],
)
def test_a_body_without_end_is_not_read_to_its_end(attn, name, tmp_path, start, again):
    write(tmp_path, {"good.json": GOOD})
    with answering(start, again) as at:
        done = attn("batch", f"{at}/{name}", "good.json", "-o", "out", "--max-size", "1MB", "--no-progress")

    assert (done.status, "1 done, 1 failed" in done.err) == (1, True)
    assert f"failed[too-large]: {at}/{name}: {at}/{name} holds more than 1,000,000 bytes" in done.err
    assert names(tmp_path / "out") == ["failed.txt", "good.json", "manifest.ndjson"]


def test_a_limit_counts_for_other_file_systems_and_not_for_files(attn, tmp_path):
    import fsspec

    write(tmp_path, {"big.json": GOOD + " " * 2000})
    fsspec.filesystem("memory").pipe("/big.json", (GOOD + " " * 2000).encode())

    done = attn("batch", "memory://big.json", "-o", "out", "--max-size", "2kB")
    exact = attn("batch", "memory://big.json", "-o", "out", "--max-size", len(GOOD) + 2000, "-q")
    local = attn("batch", "big.json", "-o", "more", "--max-size", "1", "-q")

    assert "failed[too-large]: memory://big.json" in done.err
    assert (exact.status, local.status) == (0, 0)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        ("500MB", 500_000_000),
        ("2GiB", 2**31),
        ("2 gib", 2**31),
        ("1.5kB", 1500),
        ("0.5TiB", 2**39),
        ("7B", 7),
    ],
)
def test_a_size_is_read(text, count):
    assert parse_max_size(text) == count


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "2G", "MB", "1e9", "nan", "inf", "0.1", "²GB", "1" * 5000, "1,5MB", "2XiB"]
)
def test_what_is_no_size_is_refused(attn, tmp_path, text):
    done = attn("batch", "x.csv", "-o", "out", f"--max-size={text}")

    assert (done.status, "--max-size is a size" in done.err) == (2, True)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5 s", 1.5), ("10m", 600), ("3min", 180), ("2h", 7200)])
def test_a_time_is_read(text, seconds):
    assert parse_max_time(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "2d", "1e9", "nan", "inf", "1" * 5000, "0.0 h", "٣"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(OptionError, match="--max-time is a time"):
        parse_max_time(text)


# ── time ─────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"", b""),  # it takes the request, and closes: no time is lost
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
        (HEAD + b"\r\n", b" "),
        (HEAD + b"Content-Length: 1000\r\n\r\n", b" "),
        (CHUNKED + b"5;ext=", b"x"),
        (CHUNKED + b"1\r\n \r\n0\r\n", b"Trailer: x\r\n"),
    ],
)
@pytest.mark.parametrize("name", ["x.json", "x.ndjson"])
def test_a_server_that_sends_a_byte_now_and_then_is_left(attn, tmp_path, start, again, name):
    write(tmp_path, {"good.json": GOOD})
    started = time.monotonic()
    with answering(start, again, pause=0.1) as at:
        done = attn("batch", f"{at}/{name}", "good.json", "-o", "out", "--max-time", "1.5", "--no-progress")

    assert time.monotonic() - started < 15
    assert (done.status, "1 done, 1 failed" in done.err) == (1, True)
    assert failure_codes(tmp_path / "out") == {f"{at}/{name}": "too-slow" if again else "cannot-read"}


def test_a_body_that_comes_too_slowly_is_left_and_our_own_time_does_not_count(monkeypatch):
    guard = address_limits.TransferGuard("http://h/x", AddressLimits())
    guard.begin_body(None)
    guard.count_bytes(20_000)
    time.sleep(0.01)
    guard.seconds_waited = 29.0
    guard.count_bytes(1)
    assert guard.seconds_waited == 29.0
    guard.seconds_waited = 31.0
    with pytest.raises(InputError, match=r"comes too slowly: 20,002 bytes in 31 s"):
        guard.count_bytes(1)
    guard.count_bytes(100_000)


# ── redirects ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("ftp://h/x.json", "it redirects to ftp://, and only http and https are followed"),
        ("file:///etc/passwd", "Redirection to url 'file:///etc/passwd' is not allowed"),
        ("data:application/json,[[1,2]]", "is not allowed"),
        ("gopher://h/", "is not allowed"),
        ("http://[", "cannot be read"),
        ("/loop.json", "infinite loop"),
    ],
)
def test_a_redirect_leads_to_http_alone(attn, tmp_path, location, says):
    with served(("/loop.json", b"", {"Location": location})) as (at, _):
        done = attn("batch", f"http://{at}/loop.json", "-o", "out")

    assert done.status == 1
    assert f"failed[cannot-read]: http://{at}/loop.json: " in done.err
    assert says in done.err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"])
def test_a_public_host_does_not_redirect_to_a_private_one(attn, tmp_path, monkeypatch, host):
    """127.0.0.2 stands for the internet: it is the same machine."""
    is_public_ip = web_addresses.is_public_ip
    monkeypatch.setattr(web_addresses, "is_public_ip", lambda ip: ip == "127.0.0.2" or is_public_ip(ip))
    pages = ("/x.json", GOOD.encode(), {}), ("/x.json?token=abcdef", GOOD.encode(), {})
    with served(*pages) as (private, heard), served(*pages, host="127.0.0.2") as (public, _):
        inside = {"Location": f"http://{host}:{private.rpartition(':')[2]}/x.json?token=abcdef"}
        hops = ("/a.json", b"", inside), ("/b.json", b"", {"Location": f"http://{public}/x.json"})
        with served(*hops, host="127.0.0.2") as (internet, _), served(*hops) as (intranet, _):
            refused = attn("batch", f"http://{internet}/a.json", "-o", "refused")
            assert (refused.status, heard) == (1, [])
            followed = attn("batch", f"http://{internet}/b.json", "-o", "followed", "-q")
            from_inside = attn("batch", f"http://{intranet}/a.json", f"http://{intranet}/b.json", "-o", "more", "-q")

    assert f"it redirects to {host.strip('[]')}, which is in a private network" in refused.err
    assert "abcdef" not in refused.err
    assert (followed.status, from_inside.status) == (0, 0)
    assert heard == [("/x.json?token=abcdef", None)]


@pytest.mark.parametrize(
    ("ip", "is_public"),
    [
        ("127.0.0.1", False), ("10.1.2.3", False), ("192.168.1.1", False), ("169.254.169.254", False), ("0.0.0.0", False),
        ("100.64.0.1", False), ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("224.0.0.1", False), ("8.8.8.8", True), ("2606:4700::1", True),
        ("::ffff:8.8.8.8", True),
    ],
)  # fmt: skip
def test_which_addresses_are_public(ip, is_public):
    assert web_addresses.is_public_ip(ip) is is_public


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────
SECRET = "h4rdT0Guess"
SECRET_QUERIES = [
    f"token={SECRET}", f"a=1&X-Amz-Signature={SECRET}&b=2", f"sig={SECRET}", f"key={SECRET}", f"api_key={SECRET}",
    f"apiKey={SECRET}", f"AWSAccessKeyId={SECRET}", f"X-Amz-Security-Token={SECRET}", f"X-Amz-Credential={SECRET}%2Fus",
    f"access_token={SECRET}", f"accesstoken={SECRET}", f"PASSWORD={SECRET}", f"client%5Fsecret={SECRET}", f"auth={SECRET}",
    f"a=1;token={SECRET}", f"X-Goog-Signature={SECRET}", f"to=https%3A%2F%2Fh%2F%3Fsig%3D{SECRET}", f"code={SECRET}",
    f"session_id={SECRET}&token={SECRET}", f"x=eyJ{SECRET}", f"to=http://me:{SECRET}@h/", f"subscription-key={SECRET}",
]  # fmt: skip


@pytest.mark.parametrize("query", SECRET_QUERIES)
def test_a_secret_of_a_query_is_hidden(query):
    for address in (f"https://h/x.csv?{query}", f"s3://b/x.csv?{query}", f"https://h/x.csv?n=1#{query}"):
        name = without_secrets(address)
        assert SECRET not in name
        assert without_secrets(name) == name
        assert name.startswith(address.partition("?")[0])
        assert SECRET not in hide_secrets(f"no '{address}': gone", address)
    if query.endswith(f"={SECRET}"):
        assert hide_secrets(f"no {SECRET}", f"https://h/?{query}") == "no ***"
        assert without_secrets(f"x.csv?{query}") == f"x.csv?{query}"  # a file


@pytest.mark.parametrize(
    "query",
    ["id=7", "tokens=the+cat", "author=me", "page=3&sort=asc", "versionId=3HL4", "monkeys=2", "design=1", "q=a@b", ""],
)
def test_what_is_no_secret_is_kept(query):
    assert without_secrets(f"https://h/x.csv?{query}") == f"https://h/x.csv?{query}"


def test_secrets_are_neither_printed_nor_kept_and_the_address_itself_goes_on(attn, tmp_path):
    secret = f"?id=7&token={SECRET}&X-Amz-Signature=s{SECRET}"
    with served((f"/x.json{secret}", b"{", {}), (f"/y.json{secret}", GOOD.encode(), {})) as (at, heard):
        words = [f"http://{at}/x.json{secret}", f"http://{at}/y.json{secret}", f"http://me:{SECRET}@{at}/z.csv{secret}"]
        words += [f"http://{at}{secret}", f"http://{at}/bad path.json{secret}", f"http://{at}:x/a.json{secret}"]
        first = attn("batch", *words, "-o", "out")
        dry = attn("batch", *words, "-o", "out", "--dry-run")
        record = attn("batch", *words, "-o", "out", "--error-format", "json")
        from_list = attn("batch", "@out/failed.txt", "-o", "out")
        (tmp_path / "list").write_text("\n".join(words))
        listed = attn("batch", "@list", "-o", "out")
        assert heard.count((f"/y.json{secret}", None)) >= 1

    for done in (first, dry, record, from_list, listed):
        assert SECRET not in done.err + done.out
    kept = [path for path in (tmp_path / "out").rglob("*") if SECRET in path.name or SECRET in path.read_text()]
    assert kept == []
    assert "1 done, 5 failed" in first.err
    assert "1 skipped" in listed.err
    assert f"failed[secret-not-kept]: http://{at}/x.json?id=7&token=***&X-Amz-Signature=***" in from_list.err
    assert [r["result"] for r in lines(tmp_path / "out/manifest.ndjson")[1:]].count("x.json") == 1


def test_a_name_says_whether_its_secret_was_kept():
    assert lacks_secret("https://h/x?token=***")
    assert not lacks_secret("https://h/x?token=abc")
    assert not lacks_secret("x?token=***")
    with pytest.raises(InputError) as raised, sources.open_source("https://h/x?token=***"):
        pass
    assert raised.value.code == "secret-not-kept"
