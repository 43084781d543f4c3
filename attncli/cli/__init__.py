"""Words in, exit status out: the only room that knows Typer, and the only one that catches."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from attncli import __version__
from attncli.cli import batch, check, compute, demo, explain, list, schema
from attncli.cli.messages import Messages, replace_with_ascii, replace_with_json_escape
from attncli.cli.options import with_shared_options
from attncli.errors import AttnError, CannotError, ExitStatus, OptionError, suggestion

app = typer.Typer(
    name="attn",
    help="The attention calculator: scores, softmax weights and context vectors, step by step, for your own numbers.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _register_command(function: Callable[..., Any], name: str, examples: str) -> None:
    shown = "\n\n".join(
        line.strip() for line in examples.strip().splitlines()
    )  # Typer joins lines that no blank line parts
    app.command(name, epilog=f"Examples:\n\n{shown}".replace("[", "\\["))(function)


_register_command(with_shared_options(compute.compute), "compute", compute.EXAMPLES)
_register_command(with_shared_options(explain.explain), "explain", explain.EXAMPLES)
_register_command(with_shared_options(check.check), "check", check.EXAMPLES)
_register_command(with_shared_options(batch.batch), "batch", batch.EXAMPLES)
_register_command(with_shared_options(demo.demo), "demo", demo.EXAMPLES)
_register_command(list.list_, "list", list.EXAMPLES)
_register_command(schema.schema, "schema", schema.EXAMPLES)


@app.callback(invoke_without_command=True)
def _root_command(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="print the version")] = False
) -> None:
    if version:
        print(f"attn {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        with redirect_stdout(sys.stderr):
            print(context.get_help())
        raise OptionError(
            "usage", "no command was given", help="attn demo shows an example; attn COMMAND --help says more"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; its exit status. Whatever goes wrong is said on standard error here, and nowhere else."""
    words = [*(sys.argv[1:] if argv is None else argv)]
    debug = "--debug" in words
    if sys.stderr is None:  # closed before it began: what would be said there is lost, and must not go elsewhere
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  it stays open as long as the process
    talk = Messages(
        error_format=_peek_option(words, "--error-format", ("full", "json", "concise"), "full"),
        color=_peek_option(words, "--color", ("auto", "always", "never"), "auto"),
    )
    codecs.register_error("attn", replace_with_ascii)
    codecs.register_error("attn.json", replace_with_json_escape)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="attn")
    try:
        status = _run_command_line(words)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except SystemExit as done:  # how Rich ends a process whose reader has gone
        return int(ExitStatus.BROKEN_PIPE) if done.code == 1 else int(done.code or 0)
    except AttnError as error:
        if debug and error.__cause__:
            _print_traceback()
        talk.error(error)
        return int(error.status)
    except typer.TyperException as error:  # a usage error of the command line's grammar
        talk.error(_usage_error(error, words))
        return int(ExitStatus.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        talk.write("interrupted")
        return int(ExitStatus.INTERRUPTED)
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.errno == errno.EPIPE:
            _discard_output()
            return int(ExitStatus.BROKEN_PIPE)
        if error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            _discard_output()
            talk.error(CannotError("cannot-write", f"standard output cannot be written: {error.strerror}"))
            return int(ExitStatus.CANNOT)
        return _report_bug(error, talk, debug)
    except MemoryError:
        talk.error(CannotError("out-of-memory", "this does not fit in memory"))
        return int(ExitStatus.CANNOT)
    except Exception as error:
        return _report_bug(error, talk, debug)


def _run_command_line(arguments: Sequence[str]) -> int:
    """One command line through Typer, but not through its own catching: it answers a closed pipe with status 1."""
    command = typer.main.get_command(app)
    if "_ATTN_COMPLETE" in os.environ:  # a shell asks for completions
        command.main([*arguments], prog_name="attn")
    try:
        with command.make_context("attn", [*arguments]) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as done:
        return done.exit_code


def _peek_option(arguments: Sequence[str], option: str, allowed_values: Sequence[str], default: str) -> str:
    """The value of an option before anything is parsed: errors of parsing heed it too."""
    for i, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        value = value if equals else arguments[i + 1] if i + 1 < len(arguments) else ""
        if name == option and value in allowed_values:
            return value
    return default


def _usage_error(error: typer.TyperException, arguments: Sequence[str]) -> OptionError:
    """What Typer says of a command line, as one of our errors: the sentence, and the nearest name of what exists."""
    context = getattr(error, "ctx", None)
    said = error.format_message() if hasattr(error, "format_message") else str(error)
    said, hinted, hint = said.strip().partition(" Did you mean")
    said = said.partition(" (Possible")[0].replace("Value error, ", "").rstrip(".")
    named = [f"attn {word}" for word in arguments[:1] if word in {command.name for command in app.registered_commands}]
    path = context.command_path if context else (named or ["attn"])[0]
    option = getattr(error, "option_name", "")
    if option and context:
        names = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
        close = suggestion(option, names)
        help = close if close.startswith("did") else ""
    else:
        help = f"did you mean{hint}" if hinted else ""
    return OptionError("usage", said, help=help or f"{path} --help shows what there is")


def _report_bug(error: Exception, messages: Messages, debug: bool) -> int:
    if debug:
        _print_traceback()
    said = str(error).splitlines()[0] if str(error) else ""
    messages.error(
        AttnError(
            "bug",
            f"a bug in attn: {type(error).__name__}: {said}",
            help="please report it with the command and its input; --debug shows the traceback",
        )
    )
    return int(ExitStatus.BUG)


def _print_traceback() -> None:
    import traceback

    traceback.print_exc()


def _discard_output() -> None:
    """Whoever read has gone: let what is still buffered go nowhere rather than raise again."""
    with suppress(OSError, ValueError):  # not a real file: a test's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
