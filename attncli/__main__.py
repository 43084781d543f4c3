"""The program: `attn`, and `python -m attncli`. It prepares the process, and imports little, so that Ctrl-C is heard early.

No `from __future__` stands here: `python -m attncli` finds modules in the current folder until `_leave_out_current_folder`
has run, and that line would import one.
"""

import os
import sys

TYPE_CHECKING = False  # that of `typing`, as type checkers know it
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

_SECONDS_BETWEEN_SIGNALS = 1.0  # one that comes sooner is the same request, such as `timeout` sends twice
_MAX_COLUMNS = 1000  # of a terminal that COLUMNS tells of


def run() -> "NoReturn":
    """Run the command line, then leave at once, without tearing down what torch set up."""
    status = 130
    asked_to_end: list[int] = []  # the statuses of the signals that came
    try:
        try:
            _prepare_process()
            _raise_on_signals(asked_to_end)
            from attncli.cli import main

            status = main()
        except KeyboardInterrupt:
            status = 130
        except SystemExit as request:
            status = int(request.code or 0)
        except BaseException as error:  # a module does not load; `main` reports whatever happens within it
            status = asked_to_end[-1] if asked_to_end else _report_broken_installation(error)
        if asked_to_end:  # on its way through a foreign library the exception may have become another, or nothing
            status = asked_to_end[-1]
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:
                    stream.flush()
            except (OSError, ValueError):
                status = status or 141
    finally:
        os._exit(status)


def _raise_on_signals(statuses: list[int]) -> None:
    """Let signals raise exceptions, so that an unfinished file is removed before the process ends, and list their statuses.

    Ctrl-C raises KeyboardInterrupt; SIGTERM, SIGHUP and SIGQUIT raise SystemExit with 128 + their number. A signal that is
    ignored when the process begins, as by `nohup`, stays ignored.
    """
    import signal
    from time import monotonic

    last_time = float("-inf")

    def handle_signal(number: int, frame: "FrameType | None") -> None:
        nonlocal last_time
        if number != signal.SIGINT and monotonic() - last_time < _SECONDS_BETWEEN_SIGNALS:
            return
        last_time = monotonic()
        statuses.append(128 + number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, handle_signal)


def _prepare_process() -> None:
    """Make the process one that can be relied on, whatever started it: its streams, its modules, its environment."""
    for number in (0, 1, 2):  # one that is closed would be given to the next file, and what is printed would go there
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
    if __name__ == "__main__":
        _leave_out_current_folder()
    os.environ["PYTHONSAFEPATH"] = "1"  # nor do processes that are started look for modules there
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):  # Rich and Typer believe whatever stands there
        text = os.environ.get(name, "")
        if text and not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= _MAX_COLUMNS and len(text) < 9):
            del os.environ[name]
    if "--debug" not in sys.argv:
        _silence_python()


def _leave_out_current_folder() -> None:
    """Take out of `sys.path` the current folder, where `python -m` put it: what lies there is no part of the program.

    If the package itself lies there, as in a checkout, the folder becomes the last: processes that are started need it.
    """
    if getattr(sys.flags, "safe_path", False) or not sys.path:
        return
    import attncli

    folder = sys.path.pop(0)
    package_folder = os.path.join(attncli.__path__[0], os.pardir)  # noqa: PTH118  pathlib takes its time to import
    if os.path.realpath(folder or os.curdir) == os.path.realpath(package_folder):
        sys.path.append(folder)


def _silence_python() -> None:
    """Let no warning of a library reach standard error, here or in processes that are started; `--debug` lets them.

    What a user should know is a warning of attn's own. Nor does a warning become an error, whatever PYTHONWARNINGS says.
    """
    import warnings

    os.environ["PYTHONWARNINGS"] = "ignore"
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # those that torch writes without Python
    sys.warnoptions[:] = ["ignore"]
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    warnings.showwarning = lambda *_, **__: None  # some libraries set filters of their own
    sys.unraisablehook = lambda _: None  # what is raised while an object goes away, such as Ctrl-C


def _report_broken_installation(error: BaseException) -> int:
    """Say that the program itself does not load, and return the exit status."""
    if "--debug" in sys.argv:
        import traceback

        traceback.print_exc()
    from attncli.errors import CannotError  # these need the standard library alone
    from attncli.package_errors import package_error

    first_line = next(iter(str(error).splitlines()), "")
    message = f"attn does not load: {type(error).__name__}: {first_line}"
    hint = "install it again with its dependencies: python -m pip install --force-reinstall attncli"
    reported = package_error(error) or CannotError("cannot-load", message, help=hint)
    lines = (f"error[{reported.code}]: {reported.message}", f"  = help: {reported.help}")
    try:
        for line in lines if sys.stderr is not None else ():
            print("".join(c if c.isprintable() and c.isascii() else "?" for c in line), file=sys.stderr)
    except (OSError, ValueError):
        pass  # nobody listens: the exit status still tells
    return int(reported.status)


if __name__ == "__main__":
    run()
