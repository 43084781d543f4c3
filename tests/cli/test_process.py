"""The program as a process: signals, modules of others, warnings of libraries, closed streams, odd environments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers import ROOT, SAMPLES, TIMEOUT, run_process

TOKENS = str(SAMPLES / "tokens.csv")
PYTHON = {**os.environ, "PYTHONPATH": str(ROOT)}


# ── signals ──────────────────────────────────────────────────────────────────────────────────────
def end_while_it_waits(folder: Path, number: int, **more) -> subprocess.Popen:
    """Start a stream into a file, and send a signal once a result is written and the next problem is waited for."""
    words = ["compute", "-", "--input-format", "ndjson", "-o", "r.ndjson"]
    child = subprocess.Popen(
        [sys.executable, "-m", "attncli", *words],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=PYTHON, **more,
    )  # fmt: skip
    assert child.stdin is not None
    child.stdin.write(b"[[1]]\n")
    child.stdin.flush()
    while not any(target.startswith(f"{folder}/") for target in open_files(child.pid)):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(number)
    return child


def open_files(pid: int) -> list[str]:
    """The files that a process has open, by name; one that is closed meanwhile is passed over."""
    targets = []
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                targets.append(str(link.readlink()))
    return targets


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT", "SIGINT"])
def test_a_signal_ends_it_by_its_status_and_leaves_no_file(tmp_path, name):
    number = getattr(signal, name)
    child = end_while_it_waits(tmp_path, number)
    _, err = child.communicate(timeout=TIMEOUT)

    assert (child.returncode, err) == (128 + number, b"interrupted\n" if name == "SIGINT" else b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As `nohup` does."""
    child = end_while_it_waits(tmp_path, signal.SIGHUP, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    _, err = child.communicate(b"[[2]]\n", timeout=TIMEOUT)

    assert (child.returncode, err) == (0, b"")
    assert len((tmp_path / "r.ndjson").read_text().splitlines()) == 2


PLANTED_FINDER = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            {action}
sys.meta_path.insert(0, Finder())
"""


def run_with_finder(folder: Path, module: str, action: str, *words: str, **variables: str):
    """Run the program; when it imports a module, something happens first."""
    (folder / "sitecustomize.py").write_text(PLANTED_FINDER.format(module=module, action=action))
    return run_process(*words, env={"PYTHONPATH": str(folder), **variables})


INTERRUPT = "import os, signal; os.kill(os.getpid(), signal.{name}); import time; time.sleep(0.01)"
WRAPPED = """
            try:
                {interrupt}
            except BaseException as error:
                raise {wrapper} from {cause}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "module"),
    [
        *(
            ("SIGINT", module)
            for module in ("attncli.cli", "typer", "attncli.cli.check", "numpy", "attncli.plan", "torch")
        ),
        *(("SIGTERM", module) for module in ("attncli.cli", "torch")),
        *(
            pytest.param("SIGTERM", module, marks=pytest.mark.full)
            for module in ("typer", "attncli.cli.check", "numpy", "attncli.plan")
        ),
    ],
)
def test_a_signal_while_modules_load_ends_it_by_its_status(tmp_path, module, name):
    done = run_with_finder(tmp_path, module, INTERRUPT.format(name=name), "compute", TOKENS, "-q")

    assert done.returncode == 128 + getattr(signal, name)
    assert done.stderr in (b"", b"interrupted\n")


def wrapped_signals():
    """Each wrapper with and without a cause, and each signal and module with each of both; the other triples are `full`."""
    signals = [("SIGINT", "torch"), ("SIGTERM", "torch"), ("SIGINT", "typer")]
    wrappers = ["RuntimeError('wrapped')", "ImportError('wrapped')", "OSError('wrapped')"]
    for i, (name, module) in enumerate(signals):
        for j, wrapper in enumerate(wrappers):
            for k, cause in enumerate(["error", "None"]):
                marks = [] if i == (j + k) % 3 else [pytest.mark.full]
                yield pytest.param(name, module, wrapper, cause, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "module", "wrapper", "cause"), list(wrapped_signals()))
def test_a_signal_that_a_library_turns_into_an_error_is_still_one(tmp_path, name, module, wrapper, cause):
    action = WRAPPED.format(interrupt=INTERRUPT.format(name=name), wrapper=wrapper, cause=cause)
    done = run_with_finder(tmp_path, module, action, "compute", TOKENS, "-q")

    assert done.returncode == 128 + getattr(signal, name)
    assert b"Traceback" not in done.stderr
    assert b"error[" not in done.stderr


@pytest.mark.slow
def test_a_package_that_does_not_load_is_said(tmp_path):
    (tmp_path / "typer.py").write_text("raise ImportError('no \\x1b typer')")
    done = run_process("list", env={"PYTHONPATH": str(tmp_path)})

    said = b"error[cannot-load]: the package typer does not load: no ? typer\n  = help: python -m pip install --force-reinstall typer\n"
    assert (done.returncode, done.stdout, done.stderr) == (4, b"", said)


# ── modules of others ────────────────────────────────────────────────────────────────────────────
def plant_modules(folder: Path, without: set[str]) -> Path:
    """Put a module of every name that the program may import into a folder; each writes its name to a file."""
    loaded = folder / "loaded"
    others = {
        "numpy",
        "torch",
        "typer",
        "rich",
        "msgspec",
        "polars",
        "dask",
        "distributed",
        "tornado",
        "cloudpickle",
        "pydantic",
    }
    for name in (sys.stdlib_module_names | others) - without - {"sys", "builtins"}:
        (folder / f"{name}.py").write_text(f"open({str(loaded)!r}, 'a').write({name + ' '!r})\nraise ImportError\n")
    for name in ("x.csv", "y.csv"):
        (folder / name).write_text("a,1,2\nb,3,4\n")
    return loaded


def modules_before(folder: Path) -> set[str]:
    """What Python itself imports for `-m`, before the program has begun and can leave out the current folder."""
    (folder / "nothing").mkdir()
    (folder / "nothing" / "__init__.py").touch()
    (folder / "nothing" / "__main__.py").write_text("import sys; print(*sys.modules)")
    done = subprocess.run([sys.executable, "-m", "nothing"], cwd=folder, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


COMMANDS = (["compute", "x.csv"], ["explain", "x.csv"], ["list"], ["batch", "x.csv", "y.csv", "-o", "out", "-j", "2"])


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("command", "way"),
    [
        *((command, "script") for command in COMMANDS[1:]),
        (COMMANDS[0], "module"),
        pytest.param(COMMANDS[0], "script", marks=pytest.mark.full),  # explain imports what compute does, and more
        *(pytest.param(command, "module", marks=pytest.mark.full) for command in COMMANDS[1:]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_no_module_of_the_current_folder_is_imported(tmp_path, command, way):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    script = elsewhere / "attn"
    script.write_text("import sys\nfrom attncli.__main__ import run\nif __name__ == '__main__':\n    sys.exit(run())\n")
    loaded = plant_modules(here, modules_before(elsewhere) if way == "module" else set())
    start = [sys.executable, str(script)] if way == "script" else [sys.executable, "-m", "attncli"]

    done = subprocess.run([*start, *command], cwd=here, env=PYTHON, capture_output=True, timeout=TIMEOUT, check=False)

    assert (loaded.read_text() if loaded.exists() else "") == ""
    assert done.returncode == 0, done.stderr


# ── warnings of libraries ────────────────────────────────────────────────────────────────────────
@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (["compute", TOKENS, "-q"], "always"),
        (["compute", TOKENS, "-q"], "error"),
        pytest.param(["compute", TOKENS, "-q"], "default", marks=pytest.mark.full),
        (["check", str(SAMPLES / "cat_sat.json"), "--figures", TOKENS], "default"),
    ],
)
def test_no_warning_of_a_library_is_written(tmp_path, command, wanted):
    action = "import warnings; warnings.simplefilter('always'); warnings.warn('a library says', UserWarning)"
    done = run_with_finder(tmp_path, "numpy", action, *command, PYTHONWARNINGS=wanted)

    assert b"a library says" not in done.stderr
    assert b"Warning" not in done.stderr
    assert done.returncode == (0 if command[0] == "compute" else 2)


@pytest.mark.slow
def test_debug_lets_warnings_of_libraries_through(tmp_path):
    action = "import warnings; warnings.warn('a library says', UserWarning)"
    done = run_with_finder(tmp_path, "numpy", action, "compute", TOKENS, "-q", "--debug")

    assert b"a library says" in done.stderr


# ── streams and environments ─────────────────────────────────────────────────────────────────────
@pytest.mark.slow
@pytest.mark.parametrize(
    "redirection",
    [
        "<&-",
        ">&-",
        "<&- >&- 2>&-",
        *(pytest.param(two, marks=pytest.mark.full) for two in ("2>&-", "<&- >&-", ">&- 2>&-")),
    ],
)
def test_a_closed_stream_does_not_become_the_output_file(tmp_path, redirection):
    """The lowest free descriptor would be given to the file, and whatever is printed would go there."""
    line = f"{sys.executable} -m attncli compute {TOKENS} -o r.json {redirection}"
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=PYTHON, timeout=TIMEOUT, check=False, capture_output=True
    )

    assert done.returncode == 0
    assert json.loads((tmp_path / "r.json").read_text())["schema"] == "attn.result/1"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["COLUMNS", "LINES", "TERMINAL_WIDTH"])
@pytest.mark.parametrize("value", ["0", "-1", "abc", "²", "1000000000", "1" * 5000])
def test_an_odd_width_is_no_width(warm, name, value):
    for words in (["--help"], ["compute", TOKENS, "-q"]):
        done = warm.run(*words, env={name: value})
        assert (done.returncode, done.stderr) == (0, b"")
        assert 40 < max(map(len, done.stdout.decode().splitlines())) <= 200


@pytest.mark.parametrize("value", ["x", "bash_complete", "complete_bash", "nope_source"])
def test_a_variable_of_completion_without_a_shell_is_a_usage_error(warm, value):
    done = warm.run("list", env={"_ATTN_COMPLETE": value})

    assert done.returncode == 2
    assert b"error[usage]: _ATTN_COMPLETE is set, but no shell is asking for completions\n" in done.stderr


def test_what_the_system_refuses_is_4(attn, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("attncli.batch.inputs.gather_inputs", refuse)
    done = attn("batch", TOKENS, "-o", "-")

    assert done.status == 4
    assert done.err.startswith("error[system]: the operating system refused: No usable temporary directory found\n")
    assert "TMPDIR" in done.err


def test_a_bug_tells_what_to_report(attn, monkeypatch):
    monkeypatch.setattr("attncli.readers.files.open_input", lambda *_: [][1])

    plain, debug = attn("compute", TOKENS), attn("compute", TOKENS, "--debug")

    assert plain.status == debug.status == 70
    assert "send what attn --version prints, the command, its input, and the traceback, which" in plain.err
    assert "--debug" in plain.err
    assert "and the traceback above" in debug.err
    assert "Traceback" in debug.err
