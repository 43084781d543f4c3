"""Answer a shell that asks, at the TAB key, what the word before the cursor may become: bash, zsh and fish.

The scripts are Typer's (`attn --install-completion`), and so is their protocol: `_ATTN_COMPLETE` says which shell asks, the
other variables hold the command line. Entry: `answer_shell`. What a value may be stands in `completion_values`; this
module is imported only when a shell asks.

Whatever happens, no message reaches the terminal: a line is being typed there. The text of a candidate holds no character
that a shell acts on, besides spaces and parentheses in masks, which are escaped where they are not quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import typer
from typer.core import TyperArgument, TyperOption

from attncli.cli.completion_values import Candidate, Values, find_values
from attncli.cli.environment import Environment
from attncli.text import printable

if TYPE_CHECKING:
    from typer._click.core import Command, Context
    from typer.core import TyperGroup

_SHELLS = ("bash", "zsh", "fish")
_MAX_CANDIDATES = 1000
_MAX_HELP_CHARACTERS = 70
_SEPARATORS_OF_BASH = re.compile("[:=]+")  # a word of COMP_WORDS that is nothing else joins its neighbours


class Words(NamedTuple):
    """A command line up to the cursor, as the command will get it."""

    before: list[str]  # the words before the one that is completed, without the program's name
    current: str  # the word that is completed, as far as it is typed
    fixed_length: int = 0  # how many of its characters the shell keeps, whatever the answer (bash stops at : and =)
    quote: str = ""  # the quotation mark that is open in it


def answer_shell(command: TyperGroup, environment: Environment) -> int | None:
    """Print what a shell asks for, and return the exit status; None: no shell asks that is answered here.

    Args:
        command: the program, as Typer made it.
        environment: its variables hold the question.
    """
    action, _, shell = environment.variables["_ATTN_COMPLETE"].partition("_")
    if action != "complete" or shell not in _SHELLS:
        return None
    if not environment.variables.keys() >= (
        {"COMP_WORDS", "COMP_CWORD"} if shell == "bash" else {"_TYPER_COMPLETE_ARGS"}
    ):
        return None  # somebody has set the variable, but no shell asks
    status, answer = 0, ""
    try:
        words = _read_words(shell, environment.variables)
        values = _complete(command, words)
        if shell == "bash":
            answer = _format_for_bash(command, words, values)
        elif shell == "zsh":
            answer = _format_for_zsh(words, values)
        elif environment.variables.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
            status = int(values.is_path)  # 1: fish completes names of files
        else:
            answer = _format_for_fish(values)
        if answer and environment.stdout is not None:
            print(answer, file=environment.stdout)
    except Exception:  # nothing is worth a message in the middle of a line that is being typed
        return 1
    return status


# ── the question ─────────────────────────────────────────────────────────────────────────────────
def _read_words(shell: str, variables: Mapping[str, str]) -> Words:
    """Return the command line that a shell hands over.

    Raises:
        KeyError, ValueError, IndexError: it hands over none.
    """
    if shell != "bash":
        words, quote = split_words(variables["_TYPER_COMPLETE_ARGS"])
        return Words(words[1:-1], words[-1] if len(words) > 1 else "", quote=quote)
    text = variables["COMP_WORDS"]
    pieces = (text.split("\n") if "\n" in text else text.split(" "))[: int(variables["COMP_CWORD"]) + 1]
    pieces += [""] * (int(variables["COMP_CWORD"]) + 1 - len(pieces))
    joined: list[list[str]] = []
    joins_next = False
    for piece in pieces[1:]:
        is_separator = _SEPARATORS_OF_BASH.fullmatch(piece) is not None
        if joined and (is_separator or joins_next):
            joined[-1].append(piece)
        else:
            joined.append([piece])
        joins_next = is_separator
    *before, current = joined
    if joins_next:  # the cursor stands behind a separator, where bash sees an empty word
        current.append("")
    word, quote = _unquote("".join(current))
    fixed, _ = _unquote("".join(current[:-1]))
    return Words([_unquote("".join(pieces))[0] for pieces in before], word, len(fixed), quote)


def _unquote(text: str) -> tuple[str, str]:
    """Return the text of one word without its quotation marks and backslashes, and the mark that is still open."""
    words, quote = split_words(text)
    return " ".join(words), quote


def split_words(line: str) -> tuple[list[str], str]:
    """Split a command line as shells do; the last word, which may be empty, is the one that is being typed.

    Returns:
        The words, and the quotation mark that is open in the last one.
    """
    words, word, quote = [], "", ""
    has_word = is_escaped = False
    for c in line:
        if is_escaped:
            word, is_escaped = word + c, False
        elif c == "\\" and quote != "'":
            has_word = is_escaped = True
        elif quote:
            word, quote = (word, "") if c == quote else (word + c, quote)
        elif c in "'\"":
            has_word, quote = True, c
        elif c.isspace():
            if has_word:
                words.append(word)
            word, has_word = "", False
        else:
            word, has_word = word + c, True
    return [*words, word], quote


# ── the answer ───────────────────────────────────────────────────────────────────────────────────
def _complete(command: TyperGroup, words: Words) -> Values:
    """Find what the current word may become: a command, an option, or a value."""
    before, current = words.before, words.current
    name = next((word for word in before if not word.startswith("-")), None)
    if name is None:
        found = _option_names(command, current) if current.startswith("-") else _command_names(command)
        return _starting_with(current, Values(found))
    chosen = command.commands.get(name)
    if chosen is None:
        return Values(is_path=True)
    arguments = [word for word in before[before.index(name) + 1 :] if word not in ("--help", "-h", "--help-all")]
    last = arguments[-1] if arguments else ""
    parameter: TyperOption | TyperArgument | None = _find_option(chosen, last)
    parsed = arguments if parameter is None else arguments[:-1]
    with typer.Context(command, info_name="attn", resilient_parsing=True) as program:
        context = chosen.make_context(name, [*parsed], parent=program, resilient_parsing=True)
    option, equals, value = current.partition("=")
    if parameter is None and equals and option.startswith("--") and "--" not in arguments:
        parameter = _find_option(chosen, option)
        if parameter is None:
            return Values(is_path=True)
        values = _starting_with(value, find_values(name, parameter, value, context))
        whole = tuple(one._replace(text=f"{option}={one.text}") for one in values.candidates)
        return values._replace(candidates=whole)
    if parameter is None and current.startswith("-") and "--" not in arguments:
        return _starting_with(current, Values(_option_names(chosen, current)))
    if parameter is None:
        parameter = next(
            (one for one in chosen.params if isinstance(one, TyperArgument) and _is_open_argument(one, context)), None
        )
    if parameter is None:
        return Values()
    return _starting_with(current, find_values(name, parameter, current, context))


def _starting_with(current: str, values: Values) -> Values:
    """Return the candidates that begin as the current word does."""
    kept = [candidate for candidate in values.candidates if candidate.text.startswith(current)]
    return values._replace(candidates=tuple(kept[:_MAX_CANDIDATES]))


def _find_option(command: Command, name: str) -> TyperOption | None:
    """Return the option of a name that takes a value; None: there is none."""
    if not name.startswith("-"):
        return None
    options = (one for one in command.params if isinstance(one, TyperOption) and not one.is_flag)
    return next((one for one in options if name in one.opts), None)


def _is_open_argument(parameter: TyperArgument, context: Context) -> bool:
    """Whether an argument has no value yet, or takes any number of them."""
    source = context.get_parameter_source(str(parameter.name))
    return parameter.nargs == -1 or source is None or source.name != "COMMANDLINE"


def _option_names(command: Command, current: str) -> tuple[Candidate, ...]:
    """Return the options of a command; the one-letter ones only where no more than a dash is typed."""
    candidates = [
        Candidate(option, parameter.help or "")
        for parameter in command.params
        if isinstance(parameter, TyperOption) and not parameter.hidden
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--") or current == option
    ]
    return (*candidates, Candidate("--help", "show the everyday options, and examples"))


def _command_names(command: TyperGroup) -> tuple[Candidate, ...]:
    return tuple(Candidate(name, one.get_short_help_str(90)) for name, one in command.commands.items())


# ── its form in each shell ───────────────────────────────────────────────────────────────────────
def _format_for_bash(command: TyperGroup, words: Words, values: Values) -> str:
    """Return one candidate on a line, without what bash keeps of the word.

    Bash puts a space after the only candidate. Where more is to be typed there, what may follow stands beside it, which
    also shows an example.
    """
    candidates = list(values.candidates)
    if len(candidates) == 1 and not candidates[0].is_whole:
        further = _complete(command, words._replace(current=candidates[0].text))
        longer = [one for one in further.candidates if len(one.text) > len(candidates[0].text)]
        candidates += longer or [Candidate(candidates[0].text + "FILE")]
    texts = [candidate.text[words.fixed_length :] for candidate in candidates]
    return "\n".join(texts if words.quote else [re.sub(r"([\s()])", r"\\\1", text) for text in texts])


def _format_for_zsh(words: Words, values: Values) -> str:
    """Return the commands that zsh evaluates; those candidates that more follows get no space.

    What the shell splits is joined again by single spaces, so no line break stands in it.
    """
    if values.is_path and not values.candidates:
        return "compset -P '*='; _files" if "=" in words.current else "_files"
    width = max((len(candidate.text) for candidate in values.candidates), default=0)
    commands = ["local -a w d"]
    for is_whole, suffix in ((True, ""), (False, "-S '' ")):
        chosen = [candidate for candidate in values.candidates if candidate.is_whole == is_whole]
        if chosen:
            texts = " ".join(_quote_for_zsh(candidate.text) for candidate in chosen)
            shown = " ".join(_quote_for_zsh(_describe(candidate, width)) for candidate in chosen)
            commands += [f"w=({texts})", f"d=({shown})", f"compadd {suffix}-V attn -l -d d -a w"]
    return "; ".join(commands) if values.candidates else ""


def _quote_for_zsh(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _format_for_fish(values: Values) -> str:
    """Return a candidate and its description on each line; fish itself puts no space after a colon or an equals sign."""
    return "\n".join(f"{one.text}\t{_shorten_help(one.help)}".rstrip("\t") for one in values.candidates)


def _describe(candidate: Candidate, width: int) -> str:
    """Return a candidate with its description, in columns (of no-break spaces, because zsh joins others)."""
    if not candidate.help:
        return candidate.text
    return f"{candidate.text:\u00a0<{width}}\u00a0 {_shorten_help(candidate.help)}"


def _shorten_help(help: str) -> str:
    text = printable(" ".join(help.split()))
    return text if len(text) <= _MAX_HELP_CHARACTERS else text[: _MAX_HELP_CHARACTERS - 1].rstrip() + "…"
