"""What the value of an option or argument may be, for shell completion. Entry: `find_values`.

Everything is taken from the declarations: members of families with their options, choices, steps, formats. Tokens come
from the file that the command line names, as its reader finds them; nothing is read of a large, packed or binary one.
"""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from attncli.cli.input import file_mode
from attncli.cli.settings import COMMANDS
from attncli.parts.links import link
from attncli.registry import Family, Option, Traits, format_value, parse_index
from attncli.types import AXES, FIELDS
from attncli.variant import CHOICES, FAMILIES

if TYPE_CHECKING:
    from typer._click.core import Context
    from typer.core import TyperArgument, TyperOption

_MAX_FILE_BYTES = 2**19  # of a file whose tokens are completed: less than Polars would be loaded for
_MAX_TOKENS = 1000
_PLAIN_TOKEN = re.compile(r"\w[\w.+/-]{0,60}")  # one that every shell takes as it stands, quoted or not
_SUFFIXES_OF_ROWS = (".csv", ".tsv", ".tab", ".txt", ".vec", ".glove")  # of which the first rows are a file, too
_EXAMPLE_NUMBER = "2"  # for a number that has no default
_VERDICT_FORMATS = ("table", "plain", "markdown", "json")


class Candidate(NamedTuple):
    """What a word may become."""

    text: str
    help: str = ""
    is_whole: bool = True  # False: something must follow in the same word


class Values(NamedTuple):
    """The candidates for a word; with none of them, the name of a file may belong there."""

    candidates: tuple[Candidate, ...] = ()
    is_path: bool = False


def find_values(command: str, parameter: TyperOption | TyperArgument, current: str, context: Context) -> Values:
    """Return what a parameter may be, as whole words; those that do not begin as the current one may be among them.

    Args:
        command: the name of the command.
        parameter: as Typer made it.
        current: what is typed of the word.
        context: the command line before it, parsed as far as it goes.
    """
    name = str(parameter.name)
    if name in _PATHS or (command, name) in _PATHS_OF_COMMANDS:
        return Values(is_path=True)
    if (command, name) in _VALUES_OF_COMMANDS:
        return Values(tuple(_VALUES_OF_COMMANDS[command, name](current, context)))
    if name == "with_":
        return _fields_with_files(current)
    if name in _VALUES:
        return Values(tuple(_VALUES[name](current, context)))
    if name in FAMILIES_OF_CHOICES:
        return Values(tuple(_complete_part(FAMILIES_OF_CHOICES[name], current)))
    if name in CHOICES and CHOICES[name].allowed_values:
        return Values(tuple(map(Candidate, CHOICES[name].allowed_values)))
    return Values(tuple(Candidate(str(item.value)) for item in parameter.shell_complete(context, current)))


FAMILIES_OF_CHOICES = {
    name.replace("-", "_"): family for name, family in FAMILIES.items() if name not in ("link", "mask")
}
_PATHS = frozenset(("input", "inputs", "figures", "output", "from_state_dict", "scheduler"))
_PATHS_OF_COMMANDS = frozenset((("demo", "output"),))


# ── parts ────────────────────────────────────────────────────────────────────────────────────────
def _complete_part(family: Family[Traits], text: str) -> Iterator[Candidate]:
    """Yield `name`, `name:`, `name:option=` or `name:option=value`, whichever is being typed."""
    name, colon, rest = text.partition(":")
    if not colon:
        for member in family.members.values():
            needs_option = any(option.required for option in member.options)
            if not needs_option:
                yield Candidate(member.name, member.formula or member.summary)
            if needs_option or (member.options and text == member.name):
                yield Candidate(f"{member.name}:", member.formula or member.summary, is_whole=False)
        return
    if name not in family.members:
        return
    options = {option.name: option for option in family.members[name].options}
    *done, last = rest.split(",")
    key, equals, _ = last.partition("=")
    head = text[: len(text) - len(last)]
    if not equals:
        given = {item.partition("=")[0] for item in done}
        for option in options.values():
            if option.name not in given:
                yield Candidate(f"{head}{option.name}=", option.describe(), is_whole=False)
    elif key in options:
        for word in _option_words(options[key]):
            yield Candidate(f"{head}{key}={word}", options[key].describe())


def _option_words(option: Option) -> tuple[str, ...]:
    """Return the words that an option may be, and for a number its default, or an example."""
    if option.allowed_values:
        return option.allowed_values
    if option.kind is bool:
        return ("yes", "no")
    has_default = not option.required and option.default is not None
    number = format_value(option.default) if has_default else _EXAMPLE_NUMBER
    return tuple(dict.fromkeys((*option.special_values, number)))


def _complete_mask(text: str, context: object) -> Iterator[Candidate]:
    """Yield masks where an expression wants one, `and` and `or` behind one."""
    head = text[: max(text.rfind(" "), text.rfind("(")) + 1]
    words = re.findall(r"[()]|[^\s()]+", head)
    if words and words[-1] not in ("and", "or", "not", "("):
        yield from (Candidate(head + word) for word in ("and", "or"))
        return
    for candidate in _complete_part(FAMILIES["mask"], text[len(head) :]):
        yield candidate._replace(text=head + candidate.text)
    if head:
        yield Candidate(f"{head}not")


def _complete_link_value(name: str) -> Callable[[str, object], Iterator[Candidate]]:
    member = next(one for one in link if one.name.replace("-", "_") == name)

    def complete(text: str, context: object) -> Iterator[Candidate]:
        yield from map(Candidate, (*member.traits.value_words, "none", _EXAMPLE_NUMBER))

    return complete


def _complete_variant(text: str, context: object) -> Iterator[Candidate]:
    from attncli.presets import PRESETS

    name, colon, rest = text.partition(":")
    for preset in PRESETS.values():
        if not colon:
            yield Candidate(preset.name, preset.summary)
        if preset.layer_choices is not None and text == preset.name:
            yield Candidate(f"{preset.name}:layer=", preset.summary, is_whole=False)
    if colon and name in PRESETS and PRESETS[name].layer_choices is not None:
        yield Candidate(f"{name}:layer=", is_whole=False)
        if rest.startswith("layer="):
            yield from (Candidate(f"{name}:layer={layer}") for layer in range(12))


# ── lists, formats, names ────────────────────────────────────────────────────────────────────────
def _complete_list(text: str, names: Iterable[tuple[str, str]]) -> Iterator[Candidate]:
    """Yield the names that may stand behind the last comma, without those before it."""
    *done, last = text.split(",")
    head = text[: len(text) - len(last)]
    yield from (Candidate(head + name, help) for name, help in names if name not in done)


def _step_names() -> Iterator[tuple[str, str]]:
    from attncli.catalogue import describe_steps

    yield from ((name, step["formula"]) for name, step in describe_steps().items())


def _complete_only(text: str, context: object) -> Iterator[Candidate]:
    yield from _complete_list(text, (*_step_names(), ("all", "every step")))


def _complete_blank(text: str, context: object) -> Iterator[Candidate]:
    yield from _complete_list(text, (*_step_names(), ("all", "every step"), ("exponentials", "those of the softmax")))


def _complete_chain(text: str, context: object) -> Iterator[Candidate]:
    yield from _complete_list(text, ((member.name, member.formula) for member in link))


def _complete_format(text: str, context: object) -> Iterator[Candidate]:
    from attncli.output_formats import FORMAT_MODULES

    yield from (Candidate(name, ", ".join(suffixes)) for name, (suffixes, _) in FORMAT_MODULES.items())


def _complete_input_format(text: str, context: object) -> Iterator[Candidate]:
    from attncli.readers.base import FORMAT_MODULES

    yield from (Candidate(name, ", ".join(suffixes)) for name, (suffixes, _) in FORMAT_MODULES.items())


def _complete_explanation_format(text: str, context: object) -> Iterator[Candidate]:
    yield from map(Candidate, ("table", "plain", "markdown", "latex", "json", "html"))


def _complete_verdict_format(text: str, context: object) -> Iterator[Candidate]:
    yield from map(Candidate, _VERDICT_FORMATS)


def _complete_demo(text: str, context: object) -> Iterator[Candidate]:
    from attncli.cli.demo import find_samples, read_title

    yield from (Candidate(name, read_title(path)) for name, path in find_samples().items())


def _catalogue_names() -> dict[str, Iterable[str]]:
    from attncli.output_formats import FORMAT_MODULES
    from attncli.presets import PRESETS

    return {
        **{family.plural: family.members for family in FAMILIES.values()},
        "variants": PRESETS,
        "steps": [name for name, _ in _step_names()],
        "choices": [choice.flag for choice in CHOICES.values()],
        "formats": FORMAT_MODULES,
    }


def _complete_family(text: str, context: object) -> Iterator[Candidate]:
    """Yield families; where a letter is typed, members too, as `attn list WORD` finds them."""
    catalogue = _catalogue_names()
    yield from map(Candidate, catalogue)
    if text:
        names = dict.fromkeys(name for names in catalogue.values() for name in names if not name.startswith("-"))
        yield from (Candidate(name) for name in names if name not in catalogue)


def _complete_member(text: str, context: Context) -> Iterator[Candidate]:
    yield from map(Candidate, _catalogue_names().get(str(context.params.get("family")), ()))


def _fields_with_files(text: str) -> Values:
    """Return the fields that another file may hold, and behind the equals sign the name of that file."""
    if "=" in text:
        return Values(is_path=True)
    fields = (field for name, field in FIELDS.items() if name not in ("variant", "about", "id", "meta", "expected"))
    return Values(tuple(Candidate(f"{field.name}=", field.help, is_whole=False) for field in fields))


# ── tokens of a file ─────────────────────────────────────────────────────────────────────────────
def _complete_selection(text: str, context: Context) -> Iterator[Candidate]:
    """Yield `axis=`, and behind it tokens or indices."""
    axis, equals, _ = text.partition("=")
    if not equals:
        yield from (Candidate(f"{name}=", is_whole=False) for name in AXES)
    elif axis in ("query", "key"):
        for candidate in _read_tokens(context, axis):
            yield candidate._replace(text=f"{axis}={candidate.text}")
    elif axis in AXES:
        yield Candidate(f"{axis}=0")


def _complete_query(text: str, context: Context) -> Iterator[Candidate]:
    yield from _read_tokens(context, "query")


def _read_tokens(context: Context, axis: str) -> list[Candidate]:
    """Return the tokens of the input by which `--at` finds them.

    One that a shell would not take as it stands, that occurs more than once or that reads as an index is offered by its
    index. What a file holds is anybody's text: only letters, digits and a few signs of it are ever given to a shell.
    """
    try:
        labels = _read_labels(context, axis)
    except Exception:  # what is wrong with the file, the command will say
        return []
    counts = Counter(labels)
    candidates = []
    for i, label in enumerate(labels[:_MAX_TOKENS]):
        is_name = _PLAIN_TOKEN.fullmatch(label) and counts[label] == 1 and parse_index(label) is None
        shown = re.sub(r"[^\w.,+/-]", "_", label[:40])
        candidates.append(Candidate(label, f"{axis} {i}") if is_name else Candidate(str(i), f"token {shown}"))
    return candidates


def _read_labels(context: Context, axis: str) -> list[str]:
    """Return the labels of an axis, as the reader of the input finds them.

    Raises:
        AttnError, OSError: the file cannot be read.
    """
    options = context.params
    path = str(options["input"])
    if not stat.S_ISREG(file_mode(path)):
        return []
    from attncli.plan.token_labels import token_labels
    from attncli.readers import detect_reader, parse_problem
    from attncli.validation import problem_size

    reader = detect_reader(path, options.get("input_format"))
    data = _read_start(path)
    if reader.is_stream or not reader.is_text or data is None:
        return []
    problem = parse_problem(
        data,
        path,
        reader,
        token_column=options.get("token_column"),
        columns=options.get("columns"),
        drop=options.get("drop"),
        header=options.get("header"),
        separator=options.get("separator"),
    )
    labels = token_labels(problem, problem_size(problem))[axis == "key"]
    return [*map(str, labels[0] if labels and isinstance(labels[0], tuple) else labels)]


def _read_start(path: str) -> bytes | None:
    """Return the bytes of a file, of a long table its first rows; None where it is too large or packed."""
    with open(path, "rb") as file:  # noqa: PTH123  as it is spelled
        data = file.read(_MAX_FILE_BYTES)
        is_all = len(data) < _MAX_FILE_BYTES
    if data.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        return None
    if is_all:
        return data
    return data[: data.rfind(b"\n") + 1] if path.lower().endswith(_SUFFIXES_OF_ROWS) else None


_VALUES: dict[str, Callable[[str, Context], Iterator[Candidate]]] = {
    "variant": _complete_variant,
    "mask": _complete_mask,
    "chain": _complete_chain,
    "device": lambda text, context: map(Candidate, ("cpu", "cuda", "mps")),
    "only": _complete_only,
    "step": lambda text, context: (Candidate(name, help) for name, help in _step_names()),
    "blank": _complete_blank,
    "at": _complete_selection,
    "format": _complete_format,
    "input_format": _complete_input_format,
    **{
        choice: _complete_link_value(choice)
        for choice in (member.name.replace("-", "_") for member in link if member.options)
    },
}
_VALUES_OF_COMMANDS: dict[tuple[str, str], Callable[[str, Context], Iterator[Candidate]]] = {
    ("check", "format"): _complete_verdict_format,
    ("config", "command"): lambda text, context: map(Candidate, COMMANDS),
    ("demo", "name"): _complete_demo,
    ("explain", "format"): _complete_explanation_format,
    ("explain", "query"): _complete_query,
    ("explain", "grad"): lambda text, context: iter((Candidate("ones"),)),
    ("list", "family"): _complete_family,
    ("list", "name"): _complete_member,
}
