"""The program without its start: a process that has everything loaded, and forks for each command line.

Most of a short command is the import of PyTorch. `python -m tests.warm SOCKET` imports it once, prints `ready`, and serves
`attn …` and `python FILE …` until its standard input closes. Tests call `WarmProgram.run`; shell commands find the
script `CLIENT` on PATH, as `attn` or as `python`. What is about the start itself, about signals or about streams that
close runs in a process of its own: `tests.helpers.run_process`.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from tests.helpers import ROOT, TIMEOUT

CLIENT = """\
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({socket!r})
    request = json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(request)
    answer = server.recv(4)
sys.exit(int.from_bytes(answer, "big") if answer else 70)
"""


class WarmProgram:
    """The process that forks, and ways to ask it."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "socket")
        self.bin = folder / "bin"  # for a shell's PATH
        self.bin.mkdir()
        for name in ("attn", "python"):
            (self.bin / name).write_text(f"#!{sys.executable} -SEs\n{CLIENT.format(socket=self.socket)}")
            (self.bin / name).chmod(0o755)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", self.socket],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONUTF8": "1"},
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError("the warm process did not start")

    def run(
        self, *words: object, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: Path = ROOT
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command line of attn: what `tests.helpers.run_process` would return."""
        arguments = [str(w) for w in words]
        request = json.dumps(["attn", arguments, str(cwd), {**os.environ, **(env or {})}]).encode()
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

    def __enter__(self) -> WarmProgram:
        return self

    def __exit__(self, *_: object) -> None:
        """Let it go: it serves until its standard input closes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=TIMEOUT)


def serve(path: str) -> None:
    """Serve until standard input closes."""
    import select

    import distributed  # noqa: F401 - starts no thread until it is used, unlike polars, which therefore is not here
    import torch  # noqa: F401

    import attncli.check
    import attncli.cli
    import attncli.core.attention
    import attncli.core.gradients  # noqa: F401

    gc.collect()
    gc.freeze()  # forks share these pages as long as nobody collects them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that serve
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _serve_one(connection)
                os._exit(0)
            connection.close()


def _serve_one(connection: socket.socket) -> None:
    """Read one request, run it in a fork, and answer with its exit status."""
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        request += connection.recv(1 << 16)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        _become(*json.loads(request))
    for stream in streams:
        os.close(stream)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall((status if status >= 0 else 128 - status).to_bytes(4, "big"))


def _become(program: str, arguments: list[str], folder: str, environment: dict[str, str]) -> NoReturn:
    """Be `attn` or `python` in this process, which is a fork of the warm one."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
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
    serve(sys.argv[1])
