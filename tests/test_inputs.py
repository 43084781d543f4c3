"""`attn batch`: what is found, what is left out, and inputs that cannot be read."""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from attncli.batch import job as work
from attncli.batch import name_lists as lists
from attncli.batch import sources as fetch
from attncli.batch.inputs import Input, gather
from attncli.batch.manifest import Manifest
from attncli.errors import InputError
from attncli.request import Choosing, Reading, Showing
from tests.test_batch import GOOD, lines, names, write

LINE = GOOD.encode() + b"\n"


def found(*words: object, **how: object) -> dict[str, str]:
    """What words stand for: results by input."""
    inputs, _ = gather(map(str, words), suffix=".json", into=Path("out"), **how)
    return {one.path: one.result for one in inputs}


def failures(folder: Path) -> dict[str, str]:
    """Codes of what failed, by input."""
    return {r["input"]: r["error"]["code"] for r in lines(folder / "manifest.ndjson") if r.get("status") == "failed"}


# ── addresses whose bytes do not all come ────────────────────────────────────────────────────────
@contextmanager
def served(*pages: tuple[str, bytes, dict[str, str]]):
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

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}", heard
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
            work.hashed(f"http://{at}/{name}")

    assert done.status == 1
    assert "1 done, 1 failed" in done.err
    assert failures(tmp_path / "out") == {f"http://{at}/{name}": "cannot-read"}
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
            with fetch.fetched(f"http://{at}/{name}.ndjson") as file:
                assert file.read() == body
            with fetch.fetched(f"http://{at}/{name}.ndjson") as file:
                assert list(file) == [LINE] * 3000
                assert file.length == (len(body) if name == "b" else 0)


def test_what_cannot_be_read_to_its_end_is_one_failure(attn, tmp_path):
    write(tmp_path, {"good.json": GOOD})
    (tmp_path / "a.ndjson").symlink_to("/proc/self/mem")  # opens, and then: Input/output error
    (tmp_path / "b.json").symlink_to("/proc/self/mem")
    if not Path("/proc/self/mem").exists():
        pytest.skip("a file that cannot be read, and can be opened, is needed")

    done = attn("batch", "a.ndjson", "b.json", "good.json", "-o", "out")
    out = attn("batch", "a.ndjson", "b.json", "good.json", "-o", "-")

    assert (done.status, out.status) == (1, 1)
    assert failures(tmp_path / "out") == {"a.ndjson": "cannot-read", "b.json": "cannot-read"}
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

    monkeypatch.setattr("urllib.request.urlopen", lambda *words, **how: Reset())
    done = attn("batch", "http://h/a.ndjson", "good.json", "-o", "out")

    assert done.status == 1
    assert failures(tmp_path / "out") == {"http://h/a.ndjson": "cannot-read"}
    assert "http://h/a.ndjson cannot be read: Connection reset by peer" in done.err


@pytest.mark.parametrize("words", [["http://[", "http://"], ["http://[::1", "good.json"], ["@list"]])
def test_an_address_that_makes_no_sense_is_one_failure(attn, tmp_path, words):
    write(tmp_path, {"good.json": GOOD, "list": "http://[\ngood.json\n"})

    done = attn("batch", *words, "-o", "out")

    assert done.status == 1
    assert set(failures(tmp_path / "out").values()) == {"cannot-read"}
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
    assert fetch.shown("http://me:p@ss@h/x?to=a@b") == "http://h/x?to=a@b"


# ── lists ────────────────────────────────────────────────────────────────────────────────────────
def test_a_list_names_the_results_that_the_folder_has(tmp_path, attn):
    write(tmp_path, {"data/good.csv": "1,2\n3,4\n", "data/deep/bad.csv": "1,2\n3\n", "other.csv": "1,2\n3,4\n"})
    assert attn("batch", "data", "-o", "out", "-q").status == 1
    write(tmp_path, {"list": "other.csv\ndata/deep\n"})
    known = {receipt.input: receipt.result for receipt in Manifest(tmp_path / "out").receipts.values()}

    assert found("@out/failed.txt", known=known) == {"data/deep/bad.csv": "deep/bad.json"}
    assert found("@out/failed.txt") == {"data/deep/bad.csv": "data/deep/bad.json"}
    assert found("@list", known=known) == {"other.csv": "other.json", "data/deep/bad.csv": "deep/bad.json"}
    assert found("data/deep/bad.csv", known=known) == {"data/deep/bad.csv": "bad.json"}  # a word is below what it names
    inputs, _ = gather(["@list"], suffix=".npz", known=known)
    assert [one.result for one in inputs] == ["other.npz", "deep/bad.npz"]


NAMES = ["\udcff\udcfe.csv", "a\u2028b\x85c\x0cd.csv", " both ends ", "# no comment.csv", 'say "x".csv', "r.csv\r", "@at.csv"]  # fmt: skip


def test_a_name_in_a_list_is_what_stands_there(attn, tmp_path):
    (tmp_path / "list").write_text(
        "\ufeff" + "\n\n".join(NAMES[:5]) + "\tbad-json: why\r\n \n@at.csv\r\n", errors="surrogateescape"
    )

    assert [*lists.listed("list")] == [*NAMES[:5], "@at.csv"]


def test_what_is_spelled_into_a_list_is_read_back(tmp_path):
    strange = [*NAMES, "a\nb.csv", "a\tb.csv", '"quoted"', '"', " ", "\ufefffirst.csv", '"[1]', "x\\ny"]
    path = tmp_path / "failed.txt"
    path.write_bytes(
        b"".join(f"{lists.spelled(name)}\tcode: why\n".encode("utf-8", "surrogateescape") for name in strange)
    )

    assert [*lists.listed(str(path))] == strange
    assert [lists.spelled(name) for name in ("data/x.csv", NAMES[0], 'say "x".csv')] == [
        "data/x.csv",
        NAMES[0],
        'say "x".csv',
    ]


def test_a_list_is_no_pattern_and_what_is_gone_from_it_is_one_failure(attn, tmp_path):
    write(
        tmp_path,
        {"a[2].csv": "1,2\n3,4\n", "a2.csv": "5,6\n7,8\n", "list": "a[1].csv\na[2].csv\n*.csv\n", "gone": "a[1].csv\n"},
    )

    done = attn("batch", "@list", "-o", "out")
    gone = attn("batch", "@gone", "-o", "more")

    assert (done.status, gone.status) == (1, 1)
    assert failures(tmp_path / "out") == {"a[1].csv": "no-such-file", "*.csv": "no-such-file"}
    assert failures(tmp_path / "more") == {"a[1].csv": "no-such-file"}
    assert names(tmp_path / "out") == ["a[2].json", "failed.txt", "manifest.ndjson"]


def test_a_file_may_be_called_as_standard_input_is(attn, tmp_path):
    write(tmp_path, {"in/-": GOOD, "in/list": "-\n"})
    os.chdir(tmp_path / "in")

    for i, word in enumerate(("@list", "?", "./-")):
        done = attn("batch", word, "--input-format", "json", "-o", f"../{i}", "-q", stdin=b"[[1, 2]]")
        assert (done.status, done.err) == (0, "")
        assert json.loads((tmp_path / f"{i}/-.json").read_text())["tokens"] == ["a", "b"]
    assert attn("batch", "-", "-o", "../x").status == 2


def test_a_list_in_another_encoding_is_refused(attn, tmp_path):
    (tmp_path / "list").write_text("a.csv\n", encoding="utf-16")

    assert attn("batch", "@list", "-o", "out").err.startswith("error[wrong-encoding]: the list list is no UTF-8")


# ── folders and globs ────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("word", ["d/**/*.json", "d", "d/*/*.json", "@list"])
def test_results_are_no_inputs_wherever_they_lie(attn, tmp_path, word):
    write(tmp_path, {"d/sub/x.json": GOOD, "list": "d\n"})

    first = attn("batch", word, "-o", "d/results")
    again = attn("batch", word, "-o", "d/results")
    other = attn("batch", word, "-o", "d/results2")

    assert "1 done, 0 failed" in first.err
    assert (again.status, "0 done, 0 failed, 1 skipped" in again.err) == (0, True)
    assert (other.status, "1 done, 0 failed" in other.err) == (0, True)
    assert not any("results" in name for name in names(tmp_path / "d/results2"))


def test_results_are_inputs_where_they_are_named(attn, tmp_path):
    write(tmp_path, {"d/x.json": GOOD, "d/file/manifest.ndjson": GOOD})
    attn("batch", "d/x.json", "-o", "d/r", "-q")

    assert found("d") == {"d/x.json": "x.json", "d/file/manifest.ndjson": "file/manifest.ndjson"}  # nobody's manifest
    assert found("d/r") == found("d/r/*") == found("d/r/x.json") == {"d/r/x.json": "x.json"}
    with pytest.raises(InputError):
        gather(["d/r"], suffix=".json", into=Path("d/r"))


def test_results_behind_a_link_are_no_inputs(attn, tmp_path):
    write(tmp_path, {"d/x.json": GOOD, "elsewhere/old.json": GOOD})
    (tmp_path / "d/out").symlink_to("../elsewhere")

    assert found("d") == {"d/x.json": "x.json", "d/out/old.json": "out/old.json"}
    for word in ("d", "d/**/*.json"):
        inputs, _ = gather([word], suffix=".json", into=Path("d/out"))
        assert [one.path for one in inputs] == ["d/x.json"]
    (tmp_path / "y").symlink_to("d")
    done = attn("batch", "d/x.json", "-o", "y", "--force")  # the folder of the input, by another name
    assert (done.status, "would replace the input d/x.json" in done.err) == (2, True)


def test_links_to_folders_are_followed_and_circles_are_not(attn, tmp_path):
    write(tmp_path, {"d/z/x.csv": "1,2\n3,4\n", "real/deep/y.csv": "1,2\n3,4\n"})
    for link, to in {"d/a": "z", "d/z/up": "../..", "d/loop": ".", "d/link": "../real", "real/back": "../d"}.items():
        (tmp_path / link).symlink_to(to)

    assert found("d") == {"d/z/x.csv": "z/x.json", "d/link/deep/y.csv": "link/deep/y.json"}
    assert found("d/**/deep/*.csv") == {"d/link/deep/y.csv": "link/deep/y.json"}
    assert found("d/*/x.csv", keep_suffix=True) == {"d/a/x.csv": "a/x.csv.json", "d/z/x.csv": "z/x.csv.json"}
    (tmp_path / "sl").mkdir()
    (tmp_path / "sl/link").symlink_to("../real/deep")
    assert found("sl") == {"sl/link/y.csv": "link/y.json"}


def test_pipes_that_are_met_are_left_out_and_those_that_are_named_are_read(attn, tmp_path):
    write(tmp_path, {"d/x.csv": "1,2\n3,4\n", "d/notes.md": ""})
    os.mkfifo(tmp_path / "d/p.csv")
    (tmp_path / "d/dangling.csv").symlink_to("nowhere")

    for word, count in (("d", 2), ("d/*.csv", 1)):
        inputs, left_out = gather([word], suffix=".json")
        assert ([one.path for one in inputs], left_out) == (["d/dangling.csv", "d/x.csv"], count)
    writer = threading.Thread(target=(tmp_path / "d/p.csv").write_text, args=("1,2\n3,5\n",), daemon=True)
    writer.start()
    done = attn("batch", "d/p.csv", "-o", "out")
    assert (done.status, "1 done, 0 failed" in done.err) == (0, True)


def test_a_folder_that_cannot_be_read_is_counted(attn, tmp_path, monkeypatch):
    write(tmp_path, {"d/x.csv": "1,2\n3,4\n", "d/locked/y.csv": "1,2\n3,4\n"})
    scandir = os.scandir

    def locked(path):
        if os.fspath(path) == "d/locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    inputs, left_out = gather(["d"], suffix=".json")
    assert ([one.path for one in inputs], left_out) == (["d/x.csv"], 1)
    monkeypatch.setattr(os, "access", lambda path, mode: path != "d/locked")
    inputs, left_out = gather(["d/locked", "d/x.csv"], suffix=".json")
    assert ([one.path for one in inputs], left_out) == (["d/locked", "d/x.csv"], 0)  # named: it fails by itself


@pytest.mark.parametrize(
    "name", ["x" * 300, "x" * 300 + ".csv", "/".join(["ab"] * 2000) + ".csv", "y" * 300 + "/z.csv"]
)
def test_a_name_that_no_file_can_have_is_one_failure(attn, tmp_path, name):
    write(tmp_path, {"good.csv": "1,2\n3,4\n", "list": f"{name}\n2{name}\ngood.csv\n"})

    one = attn("batch", name, "good.csv", "-o", "out")
    both = attn("batch", "@list", "-o", "more")

    assert (one.status, "1 done, 1 failed" in one.err) == (1, True)
    assert (both.status, "1 done, 2 failed" in both.err) == (1, True)
    assert failures(tmp_path / "more") == {name: "cannot-read", f"2{name}": "cannot-read"}
    assert [*lists.listed("more/failed.txt")] == [name, f"2{name}"]
    [message] = {r["error"]["message"] for r in lines(tmp_path / "out/manifest.ndjson") if r.get("status") == "failed"}
    assert message == f"{name[:60]}…{name[-60:]} cannot be read: File name too long"


# ── what else is read ────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "command", [["compute", "x.csv"], ["batch", "x.csv", "-o", "out"], ["batch", "x.csv", "-o", "-"]]
)
@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("foo", "--with takes NAME=PATH, not 'foo'"),
        ("parameters.w_q=", "--with takes NAME=PATH"),
        ("parameters.w_q=http://127.0.0.1:1/w.csv", "--with takes a file, and no address"),
        ("parameters.w_q=-", "standard input is for INPUT alone"),
        ("maks=m.csv", "did you mean 'mask'?"),
    ],
)
def test_what_another_file_is_taken_by_is_refused_alike(attn, tmp_path, command, pair, says):
    write(tmp_path, {"x.csv": "1,2\n3,4\n"})

    done = attn(*command, "--with", pair)

    assert (done.status, done.out) == (2, "")
    assert says in done.err
    assert not (tmp_path / "out").exists()


def test_errors_call_an_input_by_its_name_wherever_it_is_read(attn, tmp_path):
    write(tmp_path, {"n/folder.csv/x": "", "n/dangling.csvs": ""})
    job = work.Job(Choosing(), Reading(), Showing(), "json", 1, "out").elsewhere()
    for name, says in {
        "n/dangling.csv": "there is no file n/dangling.csv",
        "n/folder.csv": "n/folder.csv is a folder",
    }.items():
        with pytest.raises(InputError, match=f"^{re.escape(says)}$"):
            work.content(job, Input(name, "x.json"))
