"""A pytest session that collects the tests once, and forks for each mutant.

In the fork, functions whose code differs are given the mutated code. What runs at import cannot be exchanged like this: for
such a mutant, another fork, of a process that has imported only libraries, runs pytest in a copy of the tree.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import multiprocessing
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tests.helpers import ROOT
from tests.mutants.line_map import LineMap, Measurement, run_item
from tests.mutants.places import Mutant

FIRST_TESTS = 40  # of different files by turns, the quickest of each first
QUICK_SHARE = 50  # such a share of a mutant's time a quick test may take
MEMORY = 24 << 30  # of address space, in bytes: a mutant may ask for a whole machine's
LEAST_TEST_SECONDS = 20.0  # of processor time, before a test counts as one that hangs
HANG_FACTOR = 20
WALL_FACTOR = 8  # between processor time and time, where others use the machine

KILLED, SURVIVED, TIMED_OUT, NOT_RUN = "killed", "survived", "timed out", "no test runs it"
NOT_BEGUN = "not begun"  # pytest itself did not start
PYTEST_WORDS = ["-n", "0", "-s", "-p", "no:cacheprovider"]
COPIED = ("attncli", "tests", "sample_inputs", "docs")


@dataclass
class Outcome:
    """What became of a mutant."""

    outcome: str
    test: str = ""  # that noticed it, or in which it hung
    tests: int = 0  # that were run
    left: int = 0  # that run the line, and for which the time did not suffice
    seconds: float = 0.0


# ── which tests, in which order ──────────────────────────────────────────────────────────────────
def order_tests(tests: dict[str, float], package: str, limit: float) -> tuple[list[str], int]:
    """Return the tests to run within a limit of seconds, and how many are left out.

    First quick ones of all files by turns, the package's own before the others, then all that remain, from the quickest.
    """
    from_the_quickest = sorted(tests, key=lambda name: (tests[name], name))
    files = defaultdict(list)
    for name in from_the_quickest:
        if tests[name] <= limit / QUICK_SHARE:
            files[name.partition("::")[0]].append(name)
    by_turns = sorted(files, key=lambda path: (f"tests/{package}/" not in path, tests[files[path][0]], path))
    turns = (files[path][turn] for turn in range(FIRST_TESTS) for path in by_turns if turn < len(files[path]))
    first = list(itertools.islice(turns, FIRST_TESTS))
    rest = [name for name in from_the_quickest if name not in {*first}]
    out, seconds = [], 0.0
    for name in [*first, *rest]:
        if seconds + tests[name] <= limit:
            out.append(name)
            seconds += tests[name]
    return out, len(tests) - len(out)


# ── processes ────────────────────────────────────────────────────────────────────────────────────
def run_in_fork(work: Callable[[Callable[[dict[str, Any]], None]], None], wall_seconds: float) -> dict[str, Any]:
    """Run something in a fork: what it reported last, with `status`, or `late` if it was ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status = 70
        try:
            os.setpgid(0, 0)
            with os.fdopen(writing, "w") as out:
                work(lambda report: print(json.dumps(report), file=out, flush=True))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    deadline, content, late = time.monotonic() + wall_seconds, b"", False
    while True:
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            late = True
            break
        if not (piece := os.read(reading, 1 << 16)):
            break
        content += piece
    os.close(reading)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what the tests started, too
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = content.decode().splitlines()
    return {**(json.loads(lines[-1]) if lines else {}), "status": status, "late": late}


def quiet_child(folder: str) -> None:
    """Let this process, which is a fork, print nothing, leave its files in a folder, and take no more memory than it may."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = folder
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def set_test_limit(seconds: float) -> None:
    """End this process with SIGPROF when it has used so many seconds of processor time from now on."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, max(LEAST_TEST_SECONDS, HANG_FACTOR * seconds))


def read_outcome(report: dict[str, Any]) -> Outcome:
    """Return what a fork's last report means: it says what it is about to run, before it does."""
    out = Outcome(SURVIVED, report.get("test", ""), report.get("tests", 0))
    if report.get("failed"):
        out.outcome = KILLED
    elif report.get("done"):
        out.test = ""
    elif report["late"] or report["status"] == -signal.SIGPROF:
        out.outcome = TIMED_OUT
    elif not out.test:
        out.outcome = NOT_BEGUN  # the fault is in these modules, and says nothing about the mutant
    else:
        out.outcome = KILLED  # the process died
    return out


# ── by exchanging code ───────────────────────────────────────────────────────────────────────────
def walk_code(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from walk_code(constant)


def code_key(code: types.CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def changed_functions(mutant: Mutant) -> dict[tuple[str, str, int], types.CodeType] | None:
    """Return the mutated code of functions, by what identifies the code now; None if something else differs, too."""
    name = str(ROOT / mutant.path)
    before = compile((ROOT / mutant.path).read_text(encoding="utf-8"), name, "exec", dont_inherit=True)
    after = compile(mutant.source, name, "exec", dont_inherit=True)
    new = {code_key(code): code for code in walk_code(after)}
    changed = {code_key(code): new.get(code_key(code)) for code in walk_code(before) if new.get(code_key(code)) != code}
    outer = [key for key in changed if "<locals>" not in key[1]]
    if before.co_code != after.co_code or not outer or any(changed[key] is None for key in outer):
        return None
    if simple_constants(before) != simple_constants(after):
        return None
    return {key: code for key, code in changed.items() if code is not None}


def simple_constants(code: types.CodeType) -> list[str]:
    return [repr(c) for c in code.co_consts if not isinstance(c, types.CodeType)]


class MutantSession:
    """A plugin of pytest that tries mutants instead of running the tests."""

    def __init__(
        self,
        line_map: LineMap,
        nurseries: list[Nursery],
        try_all: Callable[[MutantSession], None],
        measuring_minutes: float,
    ) -> None:
        self.map, self.nurseries, self.try_all = line_map, nurseries, try_all
        self.measuring_minutes = measuring_minutes
        self.items: dict[str, Any] = {}
        self.functions: dict[tuple[str, str, int], list[types.FunctionType]] = defaultdict(list)

    def pytest_collection(self) -> None:
        """Draw the same examples each time, and do not look for small ones, before the tests are imported."""
        settle_hypothesis()

    def pytest_runtestloop(self, session: Any) -> bool:
        """Measure what has not been, then try the mutants."""
        gc.unfreeze()  # what the tests' own configuration has frozen: caches and functions are looked for below
        self.items = {item.nodeid: item for item in session.items}
        if session.testsfailed:
            raise SystemExit("the tests cannot be collected")
        if "polars-0" in thread_names():
            raise SystemExit(
                "a module of tests uses Polars when it is imported: its threads are missing in forks, which would wait for ever"
            )
        self.map.measure_imports()
        print(f"{len(self.items)} tests", flush=True)
        known = self.map.measured_tests()
        new = [item for name, item in self.items.items() if name not in known]
        if new:
            deadline = time.time() + 60 * self.measuring_minutes
            folder = tempfile.mkdtemp(prefix="mutants-")

            def measure(report: Callable[[dict[str, Any]], None]) -> None:
                os.environ["PYTEST_DEBUG_TEMPROOT"] = folder
                Measurement(self.map).run(new, deadline)
                report({"done": True})

            report = run_in_fork(measure, 60 * self.measuring_minutes + 600)
            shutil.rmtree(folder, ignore_errors=True)
            if not report.get("done"):
                raise SystemExit(f"the tests' lines were not measured: {report}")
            self.map = LineMap()
        for found in gc.get_objects():
            if type(found) is types.FunctionType and found.__code__.co_filename.startswith(str(ROOT / "attncli")):
                self.functions[code_key(found.__code__)].append(found)
        gc.collect()
        gc.freeze()  # forks share these pages as long as nobody collects them
        self.try_all(self)
        return True

    def try_mutants(self, mutants: list[Mutant], limit: float) -> Iterator[tuple[Mutant, Outcome]]:
        """Try mutants, as many at a time as there are nurseries; yield each with its outcome when that is known."""
        forks = multiprocessing.get_context("fork")
        results = forks.SimpleQueue()
        jobs = len(self.nurseries)

        def work(job: int) -> None:
            for i in range(job, len(mutants), jobs):
                results.put((i, self.try_mutant(mutants[i], limit, self.nurseries[job])))

        workers = [forks.Process(target=work, args=(job,)) for job in range(jobs)]
        for worker in workers:
            worker.start()
        for _ in mutants:
            i, outcome = results.get()
            yield mutants[i], outcome
        for worker in workers:
            worker.join()

    def try_mutant(self, mutant: Mutant, limit: float, nursery: Nursery) -> Outcome:
        """Run the tests of a mutant until one fails."""
        started = time.monotonic()
        replaced = None if self.map.is_imported(mutant.path, mutant.line) else changed_functions(mutant)
        if replaced is not None and not any(self.functions.get(key) for key in replaced):
            replaced = None
        tests = self.map.tests_of(mutant.path, None if replaced is None else range(mutant.line, mutant.line + 1))
        if replaced is not None and not tests:  # in the middle of a statement
            first = min(key[2] for key in replaced)
            tests = self.map.tests_of(mutant.path, range(max(first + 1, mutant.line - 3), mutant.line))
            tests = {} if not tests or self._is_statement(mutant) else tests
        if replaced is None:  # what is declared there is looked at through the registry, too
            tests = (tests or self.map.tests_of(f"attncli/{mutant.package}/", None)) | self.map.tests_in(
                f"tests/{mutant.package}/"
            )
        tests = {name: seconds for name, seconds in tests.items() if name in self.items}
        chosen, left = order_tests(tests, mutant.package, limit)
        if not chosen:
            return Outcome(NOT_RUN)
        wall = 60 + WALL_FACTOR * (limit + LEAST_TEST_SECONDS)
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            if replaced is None:
                report = nursery.run(mutant, {name: tests[name] for name in chosen}, folder, wall)
            else:
                report = run_in_fork(lambda tell: self._run_mutated(replaced, chosen, tests, folder, tell), wall)
        out = read_outcome(report)
        out.left, out.seconds = left, round(time.monotonic() - started, 1)
        return out

    def fails_unmutated(self, name: str) -> bool:
        """Whether a test fails when it is run alone on the package as it is, so that it noticed nothing."""
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            report = run_in_fork(lambda tell: self._run_mutated({}, [name], {name: 0.0}, folder, tell), 600)
        return not report.get("done", False)

    def _is_statement(self, mutant: Mutant) -> bool:
        """Whether a statement begins at a mutant's line, so that a line that is not run is not run."""
        import ast

        nodes = ast.walk(ast.parse((ROOT / mutant.path).read_text(encoding="utf-8")))
        return any(isinstance(node, ast.stmt) and node.lineno == mutant.line for node in nodes)

    def _run_mutated(
        self,
        replaced: dict[tuple[str, str, int], types.CodeType],
        chosen: list[str],
        seconds: dict[str, float],
        folder: str,
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        quiet_child(folder)
        for key, code in replaced.items():
            for function in self.functions.get(key, []):
                function.__code__ = code
        for i, name in enumerate(chosen):
            tell({"test": name, "tests": i + 1})
            set_test_limit(seconds[name])
            following = self.items[chosen[i + 1]] if i + 1 < len(chosen) else None
            if not run_item(self.items[name], following)[1]:
                tell({"test": name, "tests": i + 1, "failed": True})
                return
        tell({"tests": len(chosen), "done": True})


def thread_names() -> set[str]:
    """Return the names of this process's threads, those of libraries too, where the system tells."""
    names = set()
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):
            names.add(path.read_text().strip())
    return names


def settle_hypothesis() -> None:
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutants",
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutants")


# ── in a copy of the tree ────────────────────────────────────────────────────────────────────────
class Nursery:
    """A process that has imported libraries and nothing of ours, with a copy of the tree; it forks for each mutant."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mutants-tree-"))
        for name in COPIED:
            shutil.copytree(ROOT / name, self.folder / name)
        for path in ROOT.iterdir():
            if path.is_file() and not path.name.startswith(".coverage"):
                shutil.copy2(path, self.folder / path.name)
        self._requests, self._answers = os.pipe(), os.pipe()
        self._process = os.fork()
        if self._process == 0:
            self._serve()
        os.close(self._requests[0])
        os.close(self._answers[1])
        self._out, self._in = os.fdopen(self._requests[1], "w"), os.fdopen(self._answers[0])

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()
        os.waitpid(self._process, 0)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, mutant: Mutant, seconds: dict[str, float], folder: str, wall: float) -> dict[str, Any]:
        """Run tests on a copy with one file mutated: the last report, as `run_in_fork` returns it."""
        path = self.folder / mutant.path
        path.write_text(mutant.source, encoding="utf-8")
        try:
            print(json.dumps([seconds, folder, wall]), file=self._out, flush=True)
            return json.loads(self._in.readline())
        finally:
            shutil.copy2(ROOT / mutant.path, path)

    def _serve(self) -> NoReturn:
        try:
            os.close(self._requests[1])
            os.close(self._answers[0])
            os.chdir(self.folder)
            sys.path[:] = [str(self.folder), *(p for p in sys.path if p not in ("", str(ROOT)))]
            for name in [n for n in sys.modules if n.partition(".")[0] in ("tests", "attncli")]:
                del sys.modules[name]
            import numpy  # noqa: F401
            import pytest  # noqa: F401  # and not hypothesis, of whose early import pytest warns
            import torch  # noqa: F401

            with os.fdopen(self._requests[0]) as requests, os.fdopen(self._answers[1], "w") as answers:
                for line in requests:
                    seconds, folder, wall = json.loads(line)
                    report = run_in_fork(lambda tell, s=seconds, f=folder: _run_pytest(s, f, tell), wall)
                    print(json.dumps(report), file=answers, flush=True)
        finally:
            os._exit(0)


def _run_pytest(seconds: dict[str, float], folder: str, tell: Callable[[dict[str, Any]], None]) -> None:
    """Run tests of the current folder, in the given order, until one fails."""
    import pytest

    quiet_child(folder)
    sys.dont_write_bytecode = True  # a mutant may be as long as the file, and as old

    class Plugin:
        def pytest_collection(self) -> None:
            settle_hypothesis()

        def pytest_runtestloop(self, session: Any) -> bool:
            items = {item.nodeid: item for item in session.items}
            if session.testsfailed:
                tell({"test": "the tests cannot be collected", "failed": True})
                return True
            chosen = [name for name in seconds if name in items]
            if len(chosen) < len(seconds):  # the parameters of a test come from the package
                tell({"test": "other tests are collected", "failed": True})
                return True
            for i, name in enumerate(chosen):
                tell({"test": name, "tests": i + 1})
                set_test_limit(seconds[name])
                if not run_item(items[name], items[chosen[i + 1]] if i + 1 < len(chosen) else None)[1]:
                    tell({"test": name, "tests": i + 1, "failed": True})
                    return True
            tell({"tests": len(chosen), "done": True})
            return True

    files = list(dict.fromkeys(name.partition("::")[0] for name in seconds))
    tell({"test": ""})
    status = pytest.main([*files, *PYTEST_WORDS], plugins=[Plugin()])
    if status in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR):
        tell({"test": "the tests cannot be collected", "failed": True})
