"""A warm process for the commands of the documentation: it loads torch once and forks for each command.

`python -m tests.docs.server SOCKET` prints `ready` and then serves `attn …` and `python FILE …` until its standard
input closes. `CLIENT` is the script that stands on PATH as `attn` and as `python`: it hands over its arguments, its
folder, its environment and its three streams, and ends with the exit status that comes back.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys

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


def _run(program: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Become the program in this process, which is a fork of the warm one; never returns."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, encoding="utf-8", errors=errors)
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    try:
        if program == "attn":
            from attncli.__main__ import run

            run()
        if arguments[0] == "-c":
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    except SystemExit as done:
        status = int(done.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


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
        for stream, number in zip(streams, (0, 1, 2), strict=True):
            os.dup2(stream, number)
            os.close(stream)
        _run(*json.loads(request))
    for stream in streams:
        os.close(stream)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall((status if status >= 0 else 128 - status).to_bytes(4, "big"))


def serve(path: str) -> None:
    """Serve until standard input closes."""
    import rich.table
    import torch  # noqa: F401

    import attncli.check
    import attncli.cli
    import attncli.core.attention
    import attncli.core.gradients  # noqa: F401

    assert rich.table
    gc.collect()
    gc.freeze()  # forks share these pages as long as nobody collects them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # finished handlers leave no zombies
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            readable, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in readable:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _serve_one(connection)
                os._exit(0)
            connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
