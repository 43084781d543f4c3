"""`attn batch`: inputs at addresses, and progress."""

from __future__ import annotations

import http.server
import re
import threading

from tests.batch.helpers import GOOD, lines, names, write


def test_progress_counts_files_and_the_lines_of_one(monkeypatch):
    from attncli.batch import runner
    from attncli.batch.manifest import Receipt

    now = 100.0
    monkeypatch.setattr(runner.time, "monotonic", lambda: now)
    tally = runner.BatchStats(4, has_streams=True, started_at=now)
    now = 110.0
    tally.count_receipt(Receipt("a", "a", "skipped"))
    tally.count_receipt(Receipt("b", "b", "done"))
    assert tally.progress_text() == "0 problems/s, 20 s left"
    tally.current_lines, tally.current_failed_lines, tally.current_fraction = 2499, 3, 0.25
    assert tally.progress_text() == "2,499 lines, 3 failed; 250 problems/s, 14 s left"
    tally.count_receipt(Receipt("c", "c", "failed", problems=9999, error={"code": "lines-failed"}))
    assert (tally.progress_text(), tally.finished_count) == ("1 failed; 1,000 problems/s, 5 s left", 3)
    assert runner.BatchStats(3, started_at=now).progress_text() == "0 files/s, 0 s left"


def test_a_long_stream_says_how_far_it_is(attn, tmp_path, monkeypatch):
    monkeypatch.setattr("attncli.cli.batch._PROGRESS_LINE_SECONDS", -1.0)
    write(tmp_path, {"a.ndjson": f"{GOOD}\n[[1],[2, 3]]\n{GOOD}\n", "b.json": GOOD})

    done = attn("batch", "a.ndjson", "b.json", "-o", "out")

    said = [re.sub(r"[\d,]+ (problems/s|s left)", r"N \1", line) for line in done.err.splitlines()]
    rate = "N problems/s, N s left"
    assert said[:4] == [
        f"0 of 2; 1 lines; {rate}", f"0 of 2; 2 lines, 1 failed; {rate}", f"0 of 2; 3 lines, 1 failed; {rate}",
        f"1 of 2; 1 failed; {rate}",
    ]  # fmt: skip
    assert said[-2] == "1 done, 1 failed; N problems/s"
    assert lines(tmp_path / "out/manifest.ndjson")[1]["problems"] == 3
    silent = attn("batch", "a.ndjson", "b.json", "-o", "more", "--no-progress")
    assert " of 2;" not in silent.err


def test_memory_addresses(attn, tmp_path):
    import fsspec

    system = fsspec.filesystem("memory")
    for name, text in {"/set/a.json": GOOD, "/set/deep/b.csv": "1,2\n3,4\n", "/set/l.ndjson": f"{GOOD}\n"}.items():
        system.pipe(name, text.encode())
    try:
        assert attn("batch", "memory://set", "-o", "out", "-q").status == 0
        assert names(tmp_path / "out") == ["a.json", "deep/b.json", "l.ndjson", "manifest.ndjson"]
        assert "3 skipped" in attn("batch", "memory://set", "-o", "out").err
        assert attn("batch", "memory://set/**/*.csv", "memory://set/a.json", "-o", "some", "-q").status == 0
        assert names(tmp_path / "some") == ["a.json", "deep/b.json", "manifest.ndjson"]
        gone = attn("batch", "memory://set/nope.json", "memory://set/a.json", "-o", "gone")
        assert "failed[no-such-file]: memory://set/nope.json: there is no file" in gone.err
    finally:
        system.rm("/set", recursive=True)


def test_file_addresses(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD, "in/deep/b.csv": "1,2\n3,4\n"})

    assert attn("batch", f"file://{tmp_path}/in", "-o", "out", "-q").status == 0
    assert names(tmp_path / "out") == ["a.json", "deep/b.json", "manifest.ndjson"]


def test_http_addresses(attn, tmp_path, monkeypatch):
    write(tmp_path, {"site/sub/a.json": GOOD, "site/l.ndjson": f"{GOOD}\n{GOOD}\n"})
    monkeypatch.setenv("no_proxy", "*")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words):
            super().__init__(*words, directory=str(tmp_path / "site"))

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"127.0.0.1:{server.server_port}"
        words = [f"http://{at}/sub/a.json?secret=1", f"http://me:word@{at}/l.ndjson", f"http://{at}/gone.csv"]
        done = attn("batch", *words, "-o", "out")
        server.shutdown()

    assert names(tmp_path / "out")[:1] == ["a.json"]
    assert f"failed[no-such-file]: http://{at}/gone.csv: there is no file" in done.err
    assert "word" not in (tmp_path / "out/manifest.ndjson").read_text()
