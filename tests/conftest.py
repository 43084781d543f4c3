"""Fixtures of every test: the program in this process, and what is shared or put back."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers import Run

# Arrays as small as a test's cost more to share between threads than to compute, here and in every child process.
os.environ["OMP_NUM_THREADS"] = "1"
# Hundreds of processes import the package; they shall not compile it each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Lines are counted in the workers alone: in the hundreds of commands that tests start, counting costs much and adds little.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_START", None)

gc.disable()  # nothing that is made until the tests are collected is garbage

WARM = pytest.StashKey[Path]()  # the folder where the warm process serves all workers

settings.register_profile("attn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("attn")


def pytest_xdist_auto_num_workers(config):
    """One worker more than cores, as tests of clusters and kills wait; none where files are named, which run sooner here."""
    return 0 if any(".py" in word for word in config.args) else (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items):
    """Files that take long come first: no worker shall be left with one of them at the end."""
    long = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("cluster")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish():
    """Leave what was collected, thousands of tests and every library, to itself: looking for garbage there took a tenth of the time."""
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter):
    """Print what the fuzzers tried."""
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, [])]
    lines = [text for report in reports for name, text in report.user_properties if name == "fuzz"]
    if lines:
        terminalreporter.section("fuzzed inputs")
        for line in sorted(lines):
            terminalreporter.write_line(line)


# Folders of tests that go through whole commands, most of them in other processes.
UNCOUNTED_FOLDERS = {"batch", "cli", "docs", "fuzz", "mutants", "proposals"}


@pytest.fixture(autouse=True, scope="module")
def uncounted_lines(request):
    """Count no lines in these folders and in modules marked `uncounted`: counting costs half as much again as the tests themselves."""
    coverage = sys.modules.get("coverage")
    is_counted = request.path.parent.name not in UNCOUNTED_FOLDERS and not request.node.get_closest_marker("uncounted")
    counter = coverage.Coverage.current() if coverage and not is_counted else None
    if counter:
        counter.stop()
    yield
    if counter:
        counter.start()


@pytest.fixture
def own_stream():
    """Oracles seed PyTorch's global stream; no other test shall notice."""
    import torch

    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture(scope="module")
def small_stretches():
    """Keys that nobody reaches are left out even where that does not pay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attncli.core.bands._MIN_SKIPPED_KEYS", 1)
        patch.setattr("attncli.core.tiles._MIN_TILE_SCORES", 1)
        yield


@pytest.fixture(scope="session")
def warm(request, tmp_path_factory):
    """Run command lines in forks of a process that has everything loaded: warm.run("batch", "in", "-o", "out")."""
    from tests.warm import WarmProgram, serving

    if hasattr(request.config, "workerinput"):
        yield WarmProgram(Path(request.config.workerinput["warm_folder"]))
        return
    folder = tmp_path_factory.mktemp("warm")
    with serving(folder):
        yield WarmProgram(folder)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Let all workers share one warm process, which the first of them to be configured starts."""
    from tests.warm import serving

    if WARM not in node.config.stash:
        folder = Path(tempfile.mkdtemp(prefix="attn-warm-"))
        node.config.stash[WARM] = folder
        running = ExitStack()
        running.callback(shutil.rmtree, folder)
        running.enter_context(serving(folder))
        node.config.add_cleanup(running.close)
    node.workerinput["warm_folder"] = str(node.config.stash[WARM])


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    """The variables of a user in whose cache folder stands what this machine takes, so that --dry-run need not measure it."""
    from attncli.calibration import Calibrations
    from attncli.plan.estimate import TYPICAL_CALIBRATION

    variables = {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    path = Calibrations(variables).path
    path.parent.mkdir()
    path.write_text(json.dumps(vars(TYPICAL_CALIBRATION)))
    return variables


@pytest.fixture
def attn(monkeypatch, capfd, tmp_path, measured):
    """Run a command line in this process, from a folder of its own: attn("compute", "x.csv", stdin=b"…") → Run.

    Its environment is its own: standard input holds `stdin`, `variables` are the environment variables that attn heeds,
    and with `columns` standard output and standard error are terminals of that width. What is written past these
    streams fails the test.
    """
    from attncli.cli import main
    from attncli.cli.environment import Environment

    monkeypatch.chdir(tmp_path)

    def run(*words: object, stdin: bytes = b"", variables: dict[str, str] | None = None, columns: int | None = None):
        capfd.readouterr()
        make_stream = MemoryStream if columns is None else MemoryTerminal
        environment = Environment(
            make_stream(stdin), make_stream(), make_stream(), variables=measured | (variables or {}), columns=columns
        )
        status = main([str(word) for word in words], environment)
        assert capfd.readouterr() == ("", "")
        return Run(status, environment.stdout.text(), environment.stderr.text())

    return run


class MemoryStream(io.TextIOWrapper):
    """A standard stream that is kept in memory."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode("utf-8", "surrogateescape")


class MemoryTerminal(MemoryStream):
    """The same, and it says that it is a terminal."""

    def isatty(self) -> bool:
        return True
