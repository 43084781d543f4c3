"""Arguments in, exit status out: `main` runs one command line and is the only place that catches errors."""

from __future__ import annotations

import codecs
import errno
import os
import stat
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

import typer

from attncli.cli.app import app, make_program
from attncli.cli.environment import Environment
from attncli.cli.input import file_mode
from attncli.cli.messages import Messages, replace_with_ascii, replace_with_json_escape, usage_sentence
from attncli.errors import AttnError, CannotError, ExitStatus, OptionError
from attncli.package_errors import package_error
from attncli.text import closest, join_names, shorten

_ERRNOS_OF_THE_SYSTEM = (  # of errors that are nobody's mistake: files, memory or processes have run out, or are not allowed
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
)


def main(argv: Sequence[str] | None = None, environment: Environment | None = None) -> int:
    """Run one command line and return its exit status. Every error is reported here, on standard error.

    Args:
        argv: the arguments after the program's name; None: those of this process.
        environment: the streams and environment variables to use; None: those of this process.
    """
    arguments = [*(sys.argv[1:] if argv is None else argv)]
    if environment is None:
        environment = Environment.of_process()
    codecs.register_error("attn", replace_with_ascii)
    codecs.register_error("attn.json", replace_with_json_escape)
    for stream in (environment.stdout, environment.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="attn")
    with environment.installed():
        return _run_and_report(arguments, environment)


def _run_and_report(arguments: Sequence[str], environment: Environment) -> int:
    """Run a command line; whatever goes wrong becomes a message and an exit status."""
    debug = "--debug" in arguments
    messages = Messages(
        environment,
        error_format=_peek_option(arguments, "--error-format", ("full", "json", "concise"), "full"),
        color=_peek_option(arguments, "--color", ("auto", "always", "never"), "auto"),
    )
    try:
        status = _run_command_line(arguments, environment)
        if environment.stdout is not None:
            environment.stdout.flush()
        return status
    except SystemExit as error:  # how Rich ends a process when nobody reads its output any more
        return int(ExitStatus.BROKEN_PIPE) if error.code == 1 else int(error.code or 0)
    except AttnError as error:
        if (asked_status := _signal_status(error)) is not None:
            return asked_status
        if debug and error.__cause__:
            messages.write_traceback(error)
        messages.error(error)
        return int(error.status)
    except typer.TyperException as error:  # a usage error of the command line's grammar
        messages.error(_usage_error(error, arguments))
        return int(ExitStatus.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        messages.write("interrupted")
        return int(ExitStatus.INTERRUPTED)
    except OSError as error:
        return _report_system_error(error, messages, debug)
    except MemoryError:
        messages.error(CannotError("out-of-memory", "the computation does not fit in memory"))
        return int(ExitStatus.CANNOT)
    except Exception as error:
        return _report_unforeseen(error, messages, debug)


def _run_command_line(arguments: Sequence[str], environment: Environment) -> int:
    """Run one command line through Typer, without its `main`, which would end with status 1 when a pipe is closed."""
    if "_ATTN_COMPLETE" in environment.variables:  # a shell asks for completions
        from attncli.cli.completion import answer_shell

        answered = answer_shell(make_program(), environment)
        if answered is not None:
            return answered
        try:
            make_program().main([*arguments], prog_name="attn")
        except (KeyError, ValueError, SystemExit) as error:
            if isinstance(error, SystemExit) and error.code != 1:
                raise
            message = "_ATTN_COMPLETE is set, but no shell is asking for completions"
            raise OptionError("usage", message, help="unset _ATTN_COMPLETE") from None
    try:
        program = make_program(arguments)
        with program.make_context("attn", [*arguments], obj=environment) as context:
            return int(program.invoke(context) or 0)
    except typer.Exit as error:
        return error.exit_code


def _peek_option(arguments: Sequence[str], option: str, allowed_values: Sequence[str], default: str) -> str:
    """The value of an option before anything is parsed, because it holds for errors of parsing too."""
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if not equals:
            value = arguments[i + 1] if i + 1 < len(arguments) else ""
        if name == option and value in allowed_values:
            return value
    return default


def _find_quoted_step(message: str) -> str:
    """Return the step that a message quotes as a value; empty: it quotes none."""
    from attncli.step_names import STEP_NAMES

    return next((name for name in STEP_NAMES if f"'{name}' is not" in message), "")


def _usage_error(error: typer.TyperException, arguments: Sequence[str]) -> OptionError:
    """Turn an error of Typer into one of ours: its sentence, and the nearest name of those that exist."""
    context = getattr(error, "ctx", None)
    message, has_hint, hint = usage_sentence(error).partition(" Did you mean")
    message = message.rstrip(".")
    option = getattr(error, "option_name", "")
    if option and context:
        return OptionError("usage", message, help=_suggest_option(option, context))
    command_names = {str(command.name) for command in app.registered_commands}
    word = next((argument for argument in arguments if not argument.startswith("-")), "")
    if context and context.parent is None and word not in command_names:
        return OptionError("usage", message, help=_suggest_command_line(word, arguments, command_names))
    if context:
        path = context.command_path
    else:
        path = f"attn {arguments[0]}" if arguments and arguments[0] in command_names else "attn"
    if "'--kind'" in message and path == "attn plot" and (step := _find_quoted_step(message)):
        return OptionError("usage", message, help=f"--only {step} draws that step")
    return OptionError("usage", message, help=f"did you mean{hint}" if has_hint else f"{path} --help explains it")


def _suggest_option(option: str, context: typer.Context) -> str:
    """Say which option a misspelt one may be, and where all of them are listed."""
    names = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
    match = closest(option, names)
    if match is not None:
        return f"did you mean {match!r}?"
    from attncli.synonyms import find_way_out

    if context.parent is None:
        return f"options of a command go after it: attn compute INPUT {option}; attn --help lists the commands"
    name = option.lstrip("-")
    if way_out := find_way_out(name):
        return way_out
    commands = [command for command, names in _long_options().items() if option in names]
    if commands:
        has = "has" if len(commands) == 1 else "have"
        return f"attn {join_names(commands)} {has} it; {context.command_path} --help-all lists every option"
    part = _find_part_with_option(name) if "--projection" in names else ""
    return part or f"{context.command_path} --help-all lists every option"


def _long_options() -> dict[str, set[str]]:
    """The long options of every command."""
    return {
        name: {text for parameter in command.params for text in parameter.opts if text.startswith("--")}
        for name, command in make_program().commands.items()
    }


def _find_part_with_option(name: str) -> str:
    """Say which parts have an option of this name, or of one that books and libraries use for it; empty: none has."""
    from attncli.synonyms import find_synonym
    from attncli.variant import FAMILIES

    owners: list[str] = []
    for family in FAMILIES.values():
        for member in family:
            options = {option.name: option for option in member.options}
            known = name if name in options else find_synonym(name, options)
            if known:
                owners.append(f"--{family.name} {member.name}:{known}=…")
    return f"it is an option of a part: {join_names(owners, 'or')}" if owners else ""


def _suggest_command_line(word: str, arguments: Sequence[str], command_names: Collection[str]) -> str:
    """Say what to type instead of a word that is no command: a file, `help` or `version`, or a misspelt one."""
    if word == "help":
        command = next((argument for argument in arguments if argument in command_names), "")
        return f"attn {command} --help" if command else "attn --help, or attn COMMAND --help"
    if word == "version":
        return "attn --version"
    mode = file_mode(word)
    if mode or Path(word).suffix:
        if stat.S_ISDIR(mode):
            return f"to compute every file in it: attn batch {shorten(word)} -o DIR"
        return f"to compute a file: attn compute {shorten(word)}"
    match = closest(word, command_names)
    return f"did you mean {match!r}?" if match else f"the commands are {join_names(sorted(command_names))}"


def _signal_status(error: BaseException) -> int | None:
    """Return the status that a signal asked for, if an error is what a library made of that; None: it is not.

    A signal raises KeyboardInterrupt or SystemExit wherever the program is, and some code turns all that is raised into an
    error of its own.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, KeyboardInterrupt):
            return int(ExitStatus.INTERRUPTED)
        if isinstance(current, SystemExit) and isinstance(current.code, int) and current.code > 128:
            return current.code
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return None


def _report_system_error(error: OSError, messages: Messages, debug: bool) -> int:
    """Write what the system refuses, and that no command expects it to refuse; nothing where the reader has gone."""
    if package_error(error) is not None:  # a library of the system, which a package needs
        return _report_unforeseen(error, messages, debug)
    if isinstance(error, BrokenPipeError) or error.errno == errno.EPIPE:
        _discard_output(messages.environment)
        return int(ExitStatus.BROKEN_PIPE)
    if error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
        _discard_output(messages.environment)
        messages.error(CannotError("cannot-write", f"standard output cannot be written: {error.strerror}"))
        return int(ExitStatus.CANNOT)
    if error.errno not in _ERRNOS_OF_THE_SYSTEM:
        return _report_unforeseen(error, messages, debug)
    if debug:
        messages.write_traceback(error)
    where = f"{error.filename}: " if isinstance(error.filename, str) else ""
    message = f"the operating system refused: {where}{error.strerror}"
    hint = "free memory, disk space or open files, or set TMPDIR to a folder that can be written to; --debug shows where it happened"
    messages.error(CannotError("system", message, help=hint))
    return int(ExitStatus.CANNOT)


def _report_unforeseen(error: Exception, messages: Messages, debug: bool) -> int:
    """Write an error that nobody foresaw: a package that does not load, or a bug to report. With `--debug` its traceback comes first."""
    if (status := _signal_status(error)) is not None:
        return status
    if debug:
        messages.write_traceback(error)
    if (of_package := package_error(error)) is not None:
        messages.error(of_package)
        return int(of_package.status)
    first_line = next(iter(str(error).splitlines()), "")
    traceback_words = "the traceback above" if debug else "the traceback, which the same command with --debug shows"
    messages.error(
        AttnError(
            "bug",
            f"a bug in attn: {type(error).__name__}: {shorten(first_line, 400)}",
            help=f"please report it: send what attn --version prints, the command, its input, and {traceback_words}",
        )
    )
    return int(ExitStatus.BUG)


def _discard_output(environment: Environment) -> None:
    """Send what is still buffered for standard output to the null device, so that flushing it does not raise again."""
    if environment.stdout is not None:
        with suppress(OSError, ValueError):  # no real file: a test's
            os.dup2(os.open(os.devnull, os.O_WRONLY), environment.stdout.fileno())
