"""The reference of the Python interface, from signatures and docstrings: `api_reference`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module

import attncli
from attncli.api.types import ChoiceOptions, FieldOptions, ReadingOptions
from attncli.types import FIELDS
from attncli.variant import CHOICES
from attncli.views.text import escape_markdown
from tests.helpers import ROOT

_SECTIONS = ("Args", "Returns", "Raises")
_FUNCTIONS = ("attend", "check", "judge_tolerance", "explain", "read", "write")
_CLASSES = ("Result", "Figure", "Step", "Report", "ToleranceReport", "Problem", "Variant", "AttnError")
_VARIABLES = {
    "Result": "result",
    "Figure": "figure",
    "Step": "step",
    "Report": "report",
    "ToleranceReport": "report",
    "Problem": "problem",
    "Variant": "variant",
    "AttnError": "error",
}
_MODULES_OF_SHARED_MEMBERS = ("attncli.check.text_report", "attncli.tolerance")
_READING = {
    "input_format": "the format, where the suffix does not name it",
    "token_column": "tables: the column that holds the tokens: a name, a number or none",
    "columns": "tables: the columns of the dimensions, or the one column of whole vectors",
    "drop": "tables: columns to leave out",
    "header": "CSV: whether the first row is a header",
    "separator": "CSV: what separates the columns",
    "from_state_dict": "take the learned arrays of one layer of a checkpoint: `model.safetensors:h.0.attn`",
}
_SHORT_FORMS = {
    "causal": "also hide later tokens: the mask causal",
    "window": "also hide what is further than L before and R after; -1: no bound",
    "rope": 'the same as position="rope"',
    "alibi": 'the same as position="alibi"',
}


def api_reference() -> str:
    """Every public name: what it takes, returns and raises."""
    lines: list[str] = []
    for name in _FUNCTIONS:
        subject = getattr(attncli, name)
        if inspect.ismodule(subject):
            subject = import_module("attncli.check.call").check_figures
        lines += _describe_function(f"attncli.{name}", subject, f"## attncli.{name}")
    lines += ["## Keywords", "", "`attend`, `check` and `explain` take these beside their own arguments."]
    lines += ["", *_keyword_table("choices: what to compute", ChoiceOptions, _choice_help)]
    lines += ["", *_keyword_table("fields of the problem", FieldOptions, _field_help)]
    lines += ["", *_keyword_table("how a file or data frame is read", ReadingOptions, lambda name: _READING[name]), ""]
    lines += _type_table()
    for name in _CLASSES:
        lines += _describe_class(name)
    return "\n".join(lines)


def _type_table() -> Iterator[str]:
    """What the names of types stand for."""
    yield from ("## Types", "", "| type | is |", "|---|---|")
    for module in ("arrays", "api/types"):
        tree = ast.parse((ROOT / f"attncli/{module}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            is_alias = isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias" and node.value
            if is_alias and ast.unparse(node.target) not in ("NumpyArray", "AnyNumpyArray"):
                yield _row(f"`{ast.unparse(node.target)}`", _type(ast.unparse(node.value).replace("'", '"')))
    yield ""


def _choice_help(name: str) -> str:
    return CHOICES[name].help if name in CHOICES else _SHORT_FORMS[name]


def _field_help(name: str) -> str:
    if name == "parameters":
        return "learned arrays by name, such as w_q"
    shapes = (
        " or ".join(f"({', '.join(shape.split())})" for shape in FIELDS[name].shapes if shape != "*")
        if name in FIELDS
        else ""
    )
    help = (
        FIELDS[name].help
        if name in FIELDS
        else {
            "memory": "what is attended to: `tokens` and `embeddings`, or the embeddings alone",
            "past": "the cache: `k`, `v` and `tokens`",
        }[name]
    )
    return f"{shapes}: {help}" if shapes else help


def _keyword_table(title: str, options: type, describe: Callable[[str], str]) -> Iterator[str]:
    yield f"| {title} | type | meaning |"
    yield "|---|---|---|"
    for name, annotation in options.__annotations__.items():
        text = annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", str(annotation))
        yield _row(f"`{name}`", _type(text), _prose(describe(name)))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _type(text: str) -> str:
    """`int | None`, where a bar stands in a table."""
    text = re.sub(r"Unpack\[(\w+)\]", "keywords", str(text)).strip("'")
    return "`" + text.replace("|", "\\|") + "`"


def _prose(text: str) -> str:
    """Prose of a docstring: what stands in backticks is code already, the rest is escaped."""
    parts = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(part.replace("|", "\\|") if part.startswith("`") else escape_markdown(part) for part in parts)


# ── docstrings ───────────────────────────────────────────────────────────────────────────────────
def _split(docstring: str) -> tuple[list[str], dict[str, list[tuple[str, str]]]]:
    """A docstring's paragraphs, and its sections, each as (name, text)."""
    paragraphs: list[str] = []
    sections: dict[str, list[tuple[str, str]]] = {}
    for block in inspect.cleandoc(docstring).split("\n\n"):
        head, _, rest = block.partition("\n")
        if head.rstrip(":") in _SECTIONS and head.endswith(":"):
            sections[head.rstrip(":")] = list(_items(rest, has_names=head != "Returns:"))
        else:
            paragraphs.append(block)
    return paragraphs, sections


def _items(text: str, *, has_names: bool) -> Iterator[tuple[str, str]]:
    text = inspect.cleandoc("\n" + text)
    if not has_names:
        yield "", text
        return
    for item in re.split(r"\n(?=\S)", text):
        name, _, meaning = item.partition(":")
        yield name, meaning


def _paragraph(block: str) -> list[str]:
    """Prose, or where it is indented the example that it is."""
    if block.startswith("    "):
        lines = inspect.cleandoc("\n" + block).splitlines()
        return ["", "```python", *(re.sub(r" {2,}# ", "  # ", line) for line in lines), "```"]  # as ruff formats it
    return ["", _prose(block)]


def _describe_function(name: str, function: object, heading: str) -> Iterator[str]:
    function = inspect.unwrap(function)
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "self"]
    spelled = str(inspect.Signature(parameters)).replace("'", '"')
    yield from (heading, "", "```python", f"{name}{spelled}", "```")
    paragraphs, sections = _split(function.__doc__ or "")
    for block in paragraphs:
        yield from _paragraph(block)
    if sections.get("Args"):
        yield from ("", "| argument | type | meaning |", "|---|---|---|")
        for argument, meaning in sections["Args"]:
            yield _row(f"`{argument}`", _type(function.__annotations__.get(argument, "")), _prose(meaning))
    returned = function.__annotations__.get("return", "None")
    meaning = "".join(text for _, text in sections.get("Returns", ()))
    if meaning or returned not in ("None", ""):
        yield from ("", f"Returns `{str(returned).strip(chr(39))}`" + (f": {_prose(meaning)}" if meaning else "."))
    if sections.get("Raises"):
        yield ""
        yield from (f"* raises `{kinds}`: {_prose(meaning)}" for kinds, meaning in sections["Raises"])
    yield ""


def _describe_class(name: str) -> Iterator[str]:
    subject = getattr(attncli, name)
    yield from (f"## attncli.{name}",)
    for block in _split(subject.__doc__ or "")[0]:
        yield from _paragraph(block)
    if name == "Problem":
        yield from (
            "",
            "Its fields are the keywords above, and `mask`, `variant` and `layout`; [file formats](file-format.md) describes them.",
        )
    if name == "Variant":
        yield from (
            "",
            "Its choices are the keywords above, without the short forms; [variants](variants.md) describes them.",
        )
    yield ""
    shared = [base for base in subject.__mro__[1:] if base.__module__ in _MODULES_OF_SHARED_MEMBERS]
    for member, value in ((n, x) for owner in (subject, *shared) for n, x in vars(owner).items()):
        function = value.fget if isinstance(value, property) else value
        if (
            member.startswith("_")
            or not inspect.isfunction(inspect.unwrap(function) if callable(function) else None)
            or member == "part_functions"
        ):
            continue
        variable = _VARIABLES[name]
        if not isinstance(value, property):
            yield from _describe_function(f"{variable}.{member}", function, f"### {variable}.{member}")
        elif function.__doc__ and name != "Variant":
            yield from (f"### {variable}.{member}", "", _prose(function.__doc__), "")
