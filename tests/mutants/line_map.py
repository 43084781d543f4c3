"""Which tests run which line, how long each test takes, and which lines run as soon as the package is imported."""

from __future__ import annotations

import functools
import gc
import json
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT
from tests.mutants.places import PACKAGES, hash_of, list_sources

FOLDER = ROOT / "build" / "mutants"  # not in git
MAP = FOLDER / "lines.json"

CACHE = type(functools.cache(lambda: None))

IMPORTED_LINES = """
import coverage, json, pkgutil, sys
count = coverage.Coverage(data_file=None, config_file=False, include=["*/attncli/*"])
count.start()
import attncli
for module in pkgutil.walk_packages(attncli.__path__, "attncli."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
from attncli.catalogue import *
count.stop()
data = count.get_data()
json.dump({name: sorted(data.lines(name)) for name in data.measured_files()}, sys.stdout)
"""


class LineMap:
    """The tests of every line of the mutated packages.

    It is kept in a file. A file of tests that has changed is measured again, and all of them if the package has changed.
    """

    def __init__(self) -> None:
        self.source_hash = hash_of(*list_sources())
        self.files: dict[str, dict[str, Any]] = {}  # file of tests → hash, seconds of each test, lines
        self.imported: dict[str, set[int]] = {}  # file → lines that run at import
        if MAP.exists():
            kept = json.loads(MAP.read_text())
            if kept["source_hash"] == self.source_hash:
                self.files = {
                    key: content
                    for key, content in kept["files"].items()
                    if (ROOT / key.partition("#")[0]).exists() and content["hash"] == hash_of(key.partition("#")[0])
                }
                self.imported = {path: set(lines) for path, lines in kept["imported"].items()}

    def measured_tests(self) -> set[str]:
        return {test[0] for content in self.files.values() for test in content["tests"]}

    def save(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        imported = {path: sorted(lines) for path, lines in self.imported.items()}
        content = {"source_hash": self.source_hash, "imported": imported, "files": self.files}
        partial = MAP.with_suffix(".partial")
        partial.write_text(json.dumps(content))
        partial.replace(MAP)

    def measure_imports(self) -> None:
        """Fill in the lines that run at import, in a process of their own."""
        if not self.imported:
            words = [sys.executable, "-c", IMPORTED_LINES]
            done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
            lines = json.loads(done.stdout)
            self.imported = {str(Path(name).relative_to(ROOT)): set(numbers) for name, numbers in lines.items()}

    def is_imported(self, path: str, line: int) -> bool:
        return line in self.imported.get(path, ())

    def tests_of(self, path: str, lines: range | None) -> dict[str, float]:
        """Return the tests that run one of some lines of a file, or any: name → seconds. Those that fail are left out.

        A path that ends with a slash is a package: of its files, any line counts.
        """
        found = {}
        for content in self.files.values():
            for source, numbers in content["lines"].items():
                if not source.startswith(path):
                    continue
                wanted = numbers if lines is None else [str(n) for n in lines if str(n) in numbers]
                for test in {t for n in wanted for t in numbers[n]}:
                    name, seconds, passed = content["tests"][test]
                    if passed:
                        found[name] = seconds
        return found

    def tests_in(self, folder: str) -> dict[str, float]:
        """Return the tests of a folder, whatever they run: name → seconds. Those that fail are left out."""
        return {
            name: seconds
            for path, content in self.files.items()
            if path.startswith(folder)
            for name, seconds, passed in content["tests"]
            if passed
        }


class Measurement:
    """Runs tests with coverage, in this process, and adds what they ran to a map."""

    def __init__(self, line_map: LineMap) -> None:
        self.map = line_map

    def run(self, items: list[Any], deadline: float) -> None:
        """Run tests, each file one after the other; save after each, and stop at the deadline, in seconds since the epoch."""
        import coverage

        caches = [x for x in gc.get_objects() if type(x) is CACHE and x.__module__.startswith("attncli")]
        sources = [str(ROOT / "attncli" / name) for name in PACKAGES]
        files = defaultdict(list)
        for item in items:
            files[item.nodeid.partition("::")[0]].append(item)
        for path, tests in files.items():
            if time.time() > deadline:
                print(f"not measured, as time is up: {path}", file=sys.stderr)
                continue
            counter = coverage.Coverage(data_file=None, config_file=False, source=sources)
            counter.start()
            coverage.Coverage.current = staticmethod(lambda: None)  # modules marked `uncounted` are counted here
            shared = _SharedFixtures(counter)
            tests[0].config.pluginmanager.register(shared)
            results = []
            for i, item in enumerate(tests):
                shared.context = str(i)
                for cache in caches:
                    cache.cache_clear()  # or only the first test that asks would run the lines
                counter.switch_context(shared.context)
                results.append(run_item(item, tests[i + 1] if i + 1 < len(tests) else None))
            counter.stop()
            tests[0].config.pluginmanager.unregister(shared)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tests that run none of the lines
                data = counter.get_data()
            lines: dict[str, dict[str, list[int]]] = {}
            for name in data.measured_files():
                by_line = data.contexts_by_lineno(name)
                lines[str(Path(name).relative_to(ROOT))] = {
                    str(n): sorted({i for context in contexts for i in _tests_of_context(context, tests)})
                    for n, contexts in by_line.items()
                }
            names = [[item.nodeid, *result] for item, result in zip(tests, results, strict=True)]
            part = sum(
                key.partition("#")[0] == path for key in self.map.files
            )  # others of the file were measured before
            self.map.files[f"{path}#{part}"] = {"hash": hash_of(path), "tests": names, "lines": lines}
            self.map.save()
            seconds = sum(result[0] for result in results)
            print(f"{path}: {len(tests)} tests in {seconds:.1f} s", flush=True, file=sys.stderr)


class _SharedFixtures:
    """A plugin that gives lines that a fixture of several tests runs a context of its own: `*` and the fixture's name."""

    def __init__(self, counter: Any) -> None:
        self.counter, self.context = counter, ""

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, object, object]:
        if fixturedef.scope == "function":
            return (yield)
        self.counter.switch_context(f"*{fixturedef.argname}")
        try:
            return (yield)
        finally:
            self.counter.switch_context(self.context)


def _tests_of_context(context: str, tests: list[Any]) -> list[int]:
    """Return which tests of a file a context means: one, or all that use a fixture."""
    if context.startswith("*"):
        return [i for i, item in enumerate(tests) if context[1:] in item.fixturenames]
    return [int(context)] if context else []


def run_item(item: Any, next_item: Any) -> tuple[float, bool]:
    """Run one test: how many seconds of this process's time it took, and whether it passed (or skipped)."""
    from _pytest.runner import runtestprotocol

    started = time.process_time()
    reports = runtestprotocol(item, nextitem=next_item, log=False)
    return time.process_time() - started, not any(report.failed for report in reports)
