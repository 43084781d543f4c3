"""Keywords of Python as what the command line's options stand for. Entries: `parse_keywords`, `python_help`.

Names, values and errors are those of the command line: a choice becomes a `VariantRequest`, a field stands beside the
problem, and the rest says how a file is read.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, wraps
from operator import index
from typing import ParamSpec, TypeGuard, TypeVar

from attncli.errors import AttnError, InputError, OptionError
from attncli.request import SHORT_FORMS, ReadOptions, VariantRequest, make_variant_request
from attncli.synonyms import find_synonym
from attncli.text import closest, join_names, quote_value, shorten, suggestion
from attncli.types import AXES, INPUT_NAMES, Json
from attncli.variant import CHOICES, FAMILIES, Variant

_DEFAULT_READING = ReadOptions()
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

READING_NAMES = ("input_format", "token_column", "columns", "drop", "header", "separator", "from_state_dict")
FIELD_NAMES = INPUT_NAMES - {"variant"}
# Options of the command line that are no keyword here: what stands for them.
_ELSEWHERE = {
    "output": "result.save('x.json')",
    "format": "result.to_text('markdown'), or result.save('x.md')",
    "json": "result.to_json()",
    "precision": "result.to_text(precision=6)",
    "bare": "result.save('x.json', bare=True)",
    "tidy": "result.save('x.csv', tidy=True)",
    "standalone": "result.save('x.tex', standalone=True)",
    "shared_js": "attn compute -o x.html --shared-js; result.save('x.html') holds its script",
    "with": "a field as a keyword: k='k.csv', or parameters={'w_q': w_q}",
    "name": "variant='llama3'",
    **dict.fromkeys(("full", "heat", "color"), "print(result), or result.to_text()"),
    **dict.fromkeys(("quiet", "no_progress", "error_format", "debug"), "nothing is printed here"),
}


@dataclass(frozen=True)
class Keywords:
    """The keywords of one call, by what they are for."""

    request: VariantRequest  # what to compute
    fields: Json  # of the problem
    read_options: ReadOptions  # how a file is read
    has_read_options: bool


def parse_keywords(keywords: Mapping[str, object], variant: object = None) -> Keywords:
    """Sort the keywords of a call by what they are for, and parse the choices among them.

    Args:
        keywords: by name; None is as good as left out.
        variant: a `Variant`, the name of one, or its choices; keywords override it, one by one.

    Raises:
        OptionError: there is no such keyword, the nearest is offered; or a choice cannot be.
    """
    choices: Json = {}
    fields: Json = {}
    reading: Json = {}
    for name, value in keywords.items():
        if value is None:
            continue
        if name == "mask":
            (choices if _names_a_mask(value) else fields)[name] = value
        elif name in CHOICES or name in SHORT_FORMS:
            choices[name] = _to_choice(name, value)
        elif name in FIELD_NAMES:
            fields[name] = value
        elif name in READING_NAMES:
            reading[name] = value
        else:
            raise _option_of_part_error(name, value, keywords) or _unknown_keyword_error(name, value)
    return Keywords(_make_request(variant, choices), fields, _make_read_options(reading), bool(reading))


def _option_of_part_error(name: str, value: object, keywords: Mapping[str, object]) -> OptionError | None:
    """Return the error that an option of a part was given as a keyword, beside the part: `position='rope', theta=500`."""
    for choice, part in keywords.items():
        family = FAMILIES.get(choice.replace("_", "-"))
        if family is None or not isinstance(part, str):
            continue
        member = family.members.get(part.partition(":")[0])
        options = [one.name for one in member.options] if member is not None else []
        spelled = name.replace("_", "-")
        option = spelled if spelled in options else find_synonym(name, options)
        if option is not None:
            word = ("yes" if value else "no") if isinstance(value, bool) else shorten(str(value))
            text = f"{part}{',' if ':' in part else ':'}{option}={word}"
            hint = f"options of a part follow its name: {choice}={text!r}"
            return OptionError("unknown-choice", f"there is no keyword {shorten(name)!r}", help=hint)
    return None


def _unknown_keyword_error(name: str, value: object) -> OptionError:
    message = f"there is no keyword {shorten(name)!r}"
    if name in AXES and (isinstance(value, str) or hasattr(value, "__index__")) and getattr(value, "ndim", 0) == 0:
        return OptionError("unknown-choice", message, help=f"at={{{name!r}: {value!r}}} selects it")
    if name in _ELSEWHERE:
        return OptionError("unknown-choice", message, help=_ELSEWHERE[name])
    from attncli.step_names import STEP_NAMES
    from attncli.validation.fields import known_parameters

    elsewhere = {*known_parameters(), *STEP_NAMES}
    if name in elsewhere:
        return OptionError("unknown-choice", message, help=_place_of_array(name))
    known = {*CHOICES, *SHORT_FORMS, *FIELD_NAMES, *READING_NAMES, "variant", "only", "at", "top"}
    match = None if closest(name, known) else closest(name, elsewhere)
    if match is not None:
        return OptionError("unknown-choice", message, help=f"did you mean {match!r}? {_place_of_array(match)}")
    return OptionError("unknown-choice", message, help=suggestion(name, known))


def _place_of_array(name: str) -> str:
    """How a learned array, or the figures of a step, are given and had."""
    from attncli.validation.fields import known_parameters

    if name in known_parameters():
        return f"parameters={{{name!r}: {name}}}"
    return f"put its figures in a dict: attncli.check(x, {{{name!r}: {name}}}); attend returns it: result[{name!r}]"


# ── choices ──────────────────────────────────────────────────────────────────────────────────────
def _names_a_mask(value: object) -> bool:
    """Whether a mask is said by name; otherwise it is booleans, a field of the problem.

    Raises:
        OptionError: it is a single boolean, which says neither.
    """
    if isinstance(value, bool):
        hint = "mask='causal', or causal=True; an array of booleans says of each query and key whether it may attend"
        raise OptionError("bad-option", f"mask is {quote_value(value)}, which is not the name of a mask", help=hint)
    if isinstance(value, str) and "." in value:
        from attncli.readers import is_input_name

        if is_input_name(value):
            hint = f"mask=pathlib.Path({value!r}) takes the booleans of that file"
            raise OptionError("bad-option", f"mask is {quote_value(value)}, which names a file, not a mask", help=hint)
    return isinstance(value, str) or (
        isinstance(value, list | tuple) and bool(value) and all(isinstance(item, str) for item in value)
    )


def _to_choice(name: str, value: object) -> object:
    """Return the value of a choice as the command line and files spell it."""
    if name in ("causal", "rope", "alibi"):
        return require_flag(name, value)
    if name == "window":
        return _to_window(value)
    if name == "dtype":
        return value if isinstance(value, str) else _name_of_dtype(value)
    if name == "device":
        return str(value)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()  # a number of NumPy's or torch's
    if isinstance(value, str | int | float | list | tuple):
        return value
    metavar = CHOICES[name].metavar
    raise OptionError("bad-option", f"{name} takes {metavar}, not {quote_value(value)}", help=CHOICES[name].help)


def _to_window(value: object) -> str:
    if isinstance(value, tuple | list) and len(value) == 2:
        return f"{value[0]},{value[1]}"
    if not isinstance(value, str):
        hint = "window=(2, 0): two tokens before and none after; -1: no bound"
        raise OptionError("bad-option", f"window takes (left, right), not {quote_value(value)}", help=hint)
    return value


def _name_of_dtype(value: object) -> str:
    """`float32` of numpy.float32, numpy.dtype("float32") and torch.float32."""
    name = getattr(value, "name", None) or getattr(value, "__name__", None) or str(value)
    return str(name).removeprefix("torch.")


def _make_request(variant: object, choices: Json) -> VariantRequest:
    """Return what is chosen by a variant, its name or its choices, and by keywords, which override it one by one.

    Raises:
        OptionError: a choice does not exist or cannot be, or the variant is something else.
    """
    if isinstance(variant, Variant):
        if not choices:
            return VariantRequest(variant=variant)
        described = variant.describe()
        made = {name: described[name] for name in variant.explicit if name in described}
        made |= {"name": described["name"]} if "name" in described else {}
        return VariantRequest(variant=_request_of(choices).resolve_variant(made))
    if isinstance(variant, str):
        return _request_of({"variant": variant, **choices})
    if isinstance(variant, Mapping):
        own = {"variant" if name == "name" else str(name): value for name, value in variant.items()}
        for name in own:
            if name not in CHOICES and name not in SHORT_FORMS and name != "variant":
                Variant(**{name: own[name]})  # raises, with the nearest name
        return _request_of(
            {name: value if name == "variant" else _to_choice(name, value) for name, value in own.items()} | choices
        )
    if variant is not None:
        hint = "a variant is one by name, such as 'llama3', or attncli.Variant(mask='causal', heads=2), or keywords: mask='causal'"
        if hasattr(variant, "shape") or hasattr(variant, "__array__") or isinstance(variant, list | tuple):
            hint = "q, k and v are keywords: attncli.attend(q=q, k=k, v=v)"
        raise OptionError("bad-option", f"variant is {describe_type(variant)}, which is not a variant", help=hint)
    return _request_of(choices)


def describe_type(value: object) -> str:
    """`a list`, `an int`, `an array`."""
    name = type(value).__name__.removeprefix("nd")
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {shorten(name)}"


def _request_of(choices: Json) -> VariantRequest:
    """Return the request for some choices; the same choices are parsed once."""
    try:
        return _cached_request(*(part for name, value in sorted(choices.items()) for part in (name, _freeze(value))))
    except TypeError:  # one cannot be hashed
        return make_variant_request(choices)


def _freeze(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=256, typed=True)
def _cached_request(*names_and_values: object) -> VariantRequest:
    return make_variant_request(
        {str(name): value for name, value in zip(names_and_values[::2], names_and_values[1::2], strict=True)}
    )


# ── how a file is read, which steps ──────────────────────────────────────────────────────────────
def _make_read_options(reading: Json) -> ReadOptions:
    """Return how a file is read.

    Raises:
        OptionError: a value cannot be.
    """
    if not reading:
        return _DEFAULT_READING

    def listed(name: str) -> str | None:
        value = reading.get(name)
        items = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, bool) or not isinstance(item, str | int) for item in items) and value is not None:
            raise OptionError("bad-option", f"{name} takes names of columns, or numbers, not {quote_value(value)}")
        return None if value is None else ",".join(map(str, items))

    header = reading.get("header")
    if isinstance(header, bool):
        header = "yes" if header else "no"
    return ReadOptions(
        input_format=optional_text("input_format", reading.get("input_format")),
        token_column=listed("token_column"),
        columns=listed("columns"),
        drop=listed("drop"),
        header=optional_word("header", header, ("yes", "no")),
        separator=optional_word("separator", reading.get("separator"), ("comma", "semicolon", "tab", "pipe", "space")),
        state_dict=optional_text("from_state_dict", reading.get("from_state_dict")),
    )


# ── plain arguments ──────────────────────────────────────────────────────────────────────────────
def require_flag(name: str, value: object) -> bool:
    """Return True or False.

    Raises:
        OptionError: it is something else.
    """
    if not isinstance(value, bool):
        raise OptionError("bad-option", f"{name} is True or False, not {quote_value(value)}")
    return value


def optional_text(name: str, value: object) -> str | None:
    """Return a text, or None.

    Raises:
        OptionError: it is something else.
    """
    if value is not None and not isinstance(value, str):
        raise OptionError("bad-option", f"{name} is a text, not {quote_value(value)}")
    return value


def optional_word(name: str, value: object, allowed: Iterable[str], code: str = "bad-option") -> str | None:
    """Return one of some words, or None.

    Raises:
        OptionError: it is something else; the nearest is offered.
    """
    words = list(allowed)
    if value is None or (isinstance(value, str) and value in words):
        return value
    help = suggestion(value, words) if isinstance(value, str) else f"it can be {join_names(words, 'or')}"
    raise OptionError(code, f"{name} cannot be {quote_value(value)}", help=help)


def parse_steps(name: str, value: object) -> tuple[str, ...]:
    """Return names of steps, of a text (`weights,context`) or of any collection of texts.

    Raises:
        OptionError: it is something else, or empty.
    """
    if value is None:
        return ()
    names = value.split(",") if isinstance(value, str) else value
    if isinstance(names, list | tuple | set | frozenset) and all(isinstance(one, str) for one in names):
        steps = tuple(
            one.strip() for one in (names if isinstance(names, list | tuple) else sorted(names)) if one.strip()
        )
        if steps or not names:
            return steps
    raise OptionError(
        "bad-option", f"{name} takes names of steps, not {quote_value(value)}", help=f"{name}=['weights', 'context']"
    )


def parse_selections(value: object) -> tuple[str, ...]:
    """Return what `--at` takes, `axis=which`, of texts or of a mapping: {"query": "shiny", "key": slice(2, 5)}.

    Raises:
        OptionError: it is something else.
    """
    from attncli.select import parse_request

    if value is None:
        return ()
    if isinstance(value, Mapping):
        texts = [f"{axis}={which}" for axis, one in value.items() for which in _spell_indices(one)]
    elif isinstance(value, str):
        texts = [value]
    elif isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        texts = list(value)
    else:
        raise OptionError(
            "bad-option", f"at takes axes, not {quote_value(value)}", help="at={'query': 'shiny', 'head': 0}"
        )
    for text in texts:
        parse_request(text)
    return tuple(texts)


def _spell_indices(value: object) -> Sequence[str]:
    """Spell what is selected of an axis as `--at` takes it."""
    if isinstance(value, slice) and value.step in (None, 1):
        return [f"{'' if value.start is None else value.start}:{'' if value.stop is None else value.stop}"]
    value = value.tolist() if hasattr(value, "tolist") else value  # NumPy's and torch's
    if isinstance(value, range | list | tuple):
        return [str(item) for item in value]
    return [str(value)]


def parse_top(value: object) -> int | None:
    """Return how many of the largest weights are returned.

    Raises:
        OptionError: it is no number from 1 on.
    """
    if value is None:
        return None
    number = 0
    if not isinstance(value, bool):
        with suppress(TypeError):  # it is no number
            number = index(value)  # type: ignore[arg-type]  # NumPy's whole numbers too
    if not 1 <= number <= 2**31:
        raise OptionError("bad-option", f"top takes an integer from 1 to {2**31}, not {quote_value(value)}")
    return number


def parse_query(value: object) -> str | int | None:
    """Return a token or an index.

    Raises:
        OptionError: it is neither.
    """
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, bool):
        with suppress(TypeError):  # it is no whole number
            return index(value)  # type: ignore[arg-type]  # NumPy's whole numbers too
    raise OptionError("bad-option", f"query is a token or an index, not {quote_value(value)}", help="query=2, or 'cat'")


# ── messages ─────────────────────────────────────────────────────────────────────────────────────
_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
_OTHER_NAMES = {"with": "a field's name", "output": "save", "no-identify": "identify"}


def _spell_output_options(text: str) -> str:
    """Spell the options of writing as keywords: `force=True` for `--force`, `format='csv'` for `--format csv`."""
    text = re.sub(r"--(force|bare|tidy|standalone)\b(?!-)", r"\1=True", text)
    text = re.sub(r"add --format (?=\w+,)", "add format=, which can be ", text)
    return re.sub(r"--format ([a-z-]+)", r"format='\1'", text)


def spelled_for_python(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorate a function so that an error which names options of the command line has a note that says what they are in Python."""

    @wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except AttnError as error:
            error.message, error.help = map(_spell_output_options, (error.message, error.help))
            error.args = (error.message,)
            flags = dict.fromkeys(_FLAG.findall(f"{error.message} {error.help}"))
            names = [_OTHER_NAMES.get(flag) or f"{flag.replace('-', '_')}=" for flag in flags]
            if names and not hasattr(error, "__notes__"):
                error.add_note(f"  = in Python: {', '.join(names)}")
            raise
        except TypeError:
            unknown = _unknown_argument_error(inspect.signature(function).parameters, kwargs)
            if unknown is None:
                raise
            raise unknown from None
        except RecursionError:
            message = "lists or dicts are nested deeper than anything a problem holds, or hold themselves"
            raise InputError("too-deep", message) from None

    return call


def _unknown_argument_error(
    parameters: Mapping[str, inspect.Parameter], keywords: Mapping[str, object]
) -> OptionError | None:
    """Return the error that a function of few parameters does not have a keyword that it was given; None where it has them all."""
    unknown = next((name for name in keywords if name not in parameters), None)
    if unknown is None or any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return None
    if "at" in parameters and unknown in AXES:
        return _unknown_keyword_error(unknown, keywords[unknown])
    known = [name for name in parameters if name != "self"]
    message = f"there is no keyword {shorten(unknown)!r}"
    return OptionError("unknown-choice", message, help=suggestion(unknown, known))


def is_path(value: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a value names a file."""
    return isinstance(value, str | os.PathLike)
