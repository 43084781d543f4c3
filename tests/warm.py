"""The program without its start: a process that has everything loaded, and forks for each command line.

Most of a short command is the import of PyTorch. `python -m tests.warm FOLDER` imports it once, and serves `attn …` and
`python FILE …` until its standard input closes, all workers of a run of tests. Tests call `WarmProgram.run`; shell
commands find the script `CLIENT` on PATH, as `attn` or as `python`. What is about the start itself, about signals or about
streams that close runs in a process of its own: `tests.helpers.run_process`.
"""

from __future__ import annotations

import marshal
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from tests.helpers import ROOT, TIMEOUT

# It imports no module that is not built in, which would take longer than all the rest.
CLIENT = """\
import _socket, marshal, posix, sys
server = _socket.socket(_socket.AF_UNIX)
server.connect({socket!r})
request = marshal.dumps((sys.argv[0].rpartition("/")[2], sys.argv[1:], posix.getcwd(), posix.environ))
streams = b"".join(stream.to_bytes(4, sys.byteorder) for stream in (0, 1, 2))
server.sendmsg([len(request).to_bytes(4, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
server.sendall(request)
answer = server.recv(4)
sys.exit(int.from_bytes(answer, "big") if answer else 70)
"""


class WarmProgram:
    """Ways to ask the process that forks, which serves in this folder, or will."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "socket")
        self.bin = folder / "bin"  # for a shell's PATH
        deadline = time.monotonic() + TIMEOUT
        while not (folder / "ready").exists():
            if (folder / "broken").exists() or time.monotonic() > deadline:
                raise RuntimeError("the warm process did not start")
            time.sleep(0.02)

    def run(
        self, *words: object, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: Path = ROOT
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command line of attn: what `tests.helpers.run_process` would return."""
        arguments = [str(w) for w in words]
        environment = {**os.environb, **{name.encode(): value.encode() for name, value in (env or {}).items()}}
        request = marshal.dumps(("attn", arguments, str(cwd), environment))
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            with socket.socket(socket.AF_UNIX) as server:
                server.settimeout(TIMEOUT)
                server.connect(self.socket)
                streams = [given.fileno(), out.fileno(), err.fileno()]
                socket.send_fds(server, [len(request).to_bytes(4, "big")], streams)
                server.sendall(request)
                answer = server.recv(4)
            out.seek(0)
            err.seek(0)
            assert answer, "the warm process has gone"
            return subprocess.CompletedProcess(
                ["attn", *arguments], int.from_bytes(answer, "big"), out.read(), err.read()
            )


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """Start the process that forks; it serves in this folder, soon, and until the end of the block."""
    (folder / "bin").mkdir()
    for name in ("attn", "python"):
        script = folder / "bin" / name
        script.write_text(f"#!{sys.executable} -SEs\n{CLIENT.format(socket=str(folder / 'socket'))}")
        script.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_START"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.warm", str(folder)],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        env={**environment, "PYTHONUTF8": "1"},
    )
    assert process.stdin is not None
    try:
        yield
    finally:
        process.stdin.close()  # it serves until then
        process.wait(timeout=TIMEOUT)


def serve(folder: Path) -> None:
    """Serve in a folder until standard input closes."""
    import tests.everything  # noqa: F401

    running: dict[int, socket.socket] = {}  # process id → who waits for its exit status
    ended, wake = socket.socketpair()  # the signal that a child has ended writes there
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()
        (folder / "ready").touch()
        while True:
            ready, _, _ = select.select([listener, ended, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            if listener in ready:
                connection, _ = listener.accept()
                request, streams = _receive(connection)
                if request:
                    child = os.fork()
                    if child == 0:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        for number, stream in enumerate(streams):
                            os.dup2(stream, number)
                        os.closerange(3, 1024)
                        _become(*request)
                    running[child] = connection
                for stream in streams:
                    os.close(stream)
            if ended in ready:
                ended.recv(1024)
                _answer(running)


def _receive(connection: socket.socket) -> tuple[tuple[Any, ...], list[int]]:
    """Read what is asked for, and the three standard streams; nothing from who has gone meanwhile."""
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        received = connection.recv(1 << 16)
        if not received:
            return (), streams
        request += received
    return marshal.loads(request), streams


def _answer(running: dict[int, socket.socket]) -> None:
    """Send the exit status of every child that has ended to who waits for it."""
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        with running.pop(child) as connection, suppress(OSError):  # nobody waits any longer
            connection.sendall((code if code >= 0 else 128 - code).to_bytes(4, "big"))


def _become(program: str, arguments: list[str], folder: str, environment: dict[bytes, bytes]) -> NoReturn:
    """Be `attn` or `python` in this process, which is a fork of the warm one."""
    os.chdir(folder)
    os.environ.clear()
    os.environb.update(environment)
    sys.argv = [program, *arguments]
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    status = 0
    try:
        if program == "attn":
            from attncli.__main__ import run

            run()
        if arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as done:
        status = int(done.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    try:
        serve(Path(sys.argv[1]))
    except BaseException:
        (Path(sys.argv[1]) / "broken").touch()
        raise
