"""What a linter would say of the page's script: syntax, names, constants and comparisons. Entry: `lint`.

The parser is tree-sitter's, so that neither a network nor a program that is no Python package is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import tree_sitter
import tree_sitter_javascript
from tree_sitter import Node

_LANGUAGE = tree_sitter.Language(tree_sitter_javascript.language())
_FUNCTIONS = ("function_declaration", "function_expression", "arrow_function", "method_definition")
_SCOPES = (
    *_FUNCTIONS,
    "program",
    "statement_block",
    "for_statement",
    "for_in_statement",
    "catch_clause",
    "switch_body",
)
# What of the language and of browsers the script may use.
BROWSER_NAMES = frozenset(
    [
        "Array",
        "ArrayBuffer",
        "BigInt",
        "Blob",
        "Boolean",
        "DataView",
        "DecompressionStream",
        "Float32Array",
        "Float64Array",
        "Infinity",
        "Int32Array",
        "JSON",
        "Math",
        "NaN",
        "Number",
        "Object",
        "Promise",
        "Response",
        "Set",
        "String",
        "TextDecoder",
        "URL",
        "Uint32Array",
        "Uint8Array",
        "addEventListener",
        "devicePixelRatio",
        "document",
        "getComputedStyle",
        "innerWidth",
        "matchMedia",
        "parseInt",
        "setTimeout",
        "structuredClone",
    ]
)


@dataclass
class _Scope:
    parent: _Scope | None
    names: dict[str, _Name] = field(default_factory=dict)

    def find(self, name: str) -> _Name | None:
        return self.names.get(name) or (self.parent.find(name) if self.parent else None)


@dataclass
class _Name:
    line: int
    is_constant: bool
    may_be_unused: bool = False
    is_used: bool = False


def lint(script: str, known: frozenset[str] = BROWSER_NAMES) -> list[str]:
    """Return what is wrong, each as `line: sentence`; nothing where all is well.

    Args:
        script: the text of a script.
        known: names that it does not declare.
    """
    root = tree_sitter.Parser(_LANGUAGE).parse(script.encode()).root_node
    broken = [f"{_line(node)}: this is no JavaScript" for node in _walk(root) if node.is_error or node.is_missing]
    if broken:
        return broken
    findings: list[str] = []
    scopes: list[_Scope] = []
    _resolve(root, _Scope(None), known, findings, scopes)
    for scope in scopes:
        for name, declared in scope.names.items():
            if not (declared.is_used or declared.may_be_unused):
                findings.append(f"{declared.line}: {name} is never used")
    return sorted(findings, key=lambda finding: int(finding.partition(":")[0]))


def words_of(script: str) -> list[str]:
    """Return a script word by word, without its comments."""
    return [
        _text(node)
        for node in _walk(tree_sitter.Parser(_LANGUAGE).parse(script.encode()).root_node)
        if not node.children and node.type != "comment"
    ]


def _resolve(node: Node, scope: _Scope, known: frozenset[str], findings: list[str], scopes: list[_Scope]) -> None:
    """Look up every name below a node."""
    if node.type in _SCOPES:
        scope = _Scope(scope)
        scopes.append(scope)
        for name, is_constant, may_be_unused in _declared_in(node):
            text = _text(name)
            if text in scope.names:
                findings.append(f"{_line(name)}: {text} is declared twice")
            scope.names[text] = _Name(_line(name), is_constant, may_be_unused)
    if node.type in ("identifier", "shorthand_property_identifier") and not _is_declaration(node):
        found = scope.find(_text(node))
        if found is None and _text(node) not in known:
            findings.append(f"{_line(node)}: {_text(node)} is declared nowhere")
        elif found is not None and not _is_only_assigned(node):
            found.is_used = True
        if found is not None and found.is_constant and _is_changed(node):
            findings.append(f"{_line(node)}: {_text(node)} is a constant")
    if node.type == "binary_expression":
        operator, right = node.child_by_field_name("operator"), node.child_by_field_name("right")
        if operator is not None and operator.type in ("==", "!=") and right is not None and right.type != "null":
            findings.append(f"{_line(node)}: {operator.type} converts types")
    for child in node.children:
        _resolve(child, scope, known, findings, scopes)


def _declared_in(scope: Node) -> Iterator[tuple[Node, bool, bool]]:
    """Yield the names that a scope declares, whether each is a constant, and whether it may be unused."""
    if scope.type in _FUNCTIONS:
        for field_name in ("parameter", "parameters"):
            parameter = scope.child_by_field_name(field_name)
            if parameter is not None:
                yield from ((name, False, True) for name in _names_of_pattern(parameter))
    if scope.type == "catch_clause" and (parameter := scope.child_by_field_name("parameter")) is not None:
        yield from ((name, False, True) for name in _names_of_pattern(parameter))
    if scope.type == "for_in_statement" and (left := scope.child_by_field_name("left")) is not None:
        kind = scope.child_by_field_name("kind")
        if kind is not None:
            yield from ((name, kind.type == "const", False) for name in _names_of_pattern(left))
    for child in scope.children:
        yield from _declared_by(child)
        if scope.type == "switch_body":
            for statement in child.children:
                yield from _declared_by(statement)


def _declared_by(statement: Node) -> Iterator[tuple[Node, bool, bool]]:
    if statement.type in ("function_declaration", "class_declaration"):
        name = statement.child_by_field_name("name")
        assert name is not None
        yield name, True, False
    if statement.type in ("lexical_declaration", "variable_declaration"):
        is_constant = statement.children[0].type == "const"
        for declarator in statement.named_children:
            if declarator.type == "variable_declarator":
                pattern = declarator.child_by_field_name("name")
                assert pattern is not None
                yield from ((name, is_constant, False) for name in _names_of_pattern(pattern))


def _names_of_pattern(pattern: Node) -> Iterator[Node]:
    """Yield the names that a pattern binds: `a`, `{a, b: [c = 1]}`, `(a, ...b)`."""
    if pattern.type in ("identifier", "shorthand_property_identifier_pattern"):
        yield pattern
    elif pattern.type in ("assignment_pattern", "object_assignment_pattern"):
        left = pattern.child_by_field_name("left")
        assert left is not None
        yield from _names_of_pattern(left)
    elif pattern.type == "pair_pattern":
        value = pattern.child_by_field_name("value")
        assert value is not None
        yield from _names_of_pattern(value)
    elif pattern.type in ("formal_parameters", "object_pattern", "array_pattern", "rest_pattern"):
        for child in pattern.named_children:
            yield from _names_of_pattern(child)


def _is_declaration(node: Node) -> bool:
    """Whether a name stands where it is declared."""
    inner, outer = node, node.parent
    while outer is not None:
        if outer.type in ("assignment_pattern", "object_assignment_pattern"):
            if inner != outer.child_by_field_name("left"):
                return False  # a default is an expression
        elif outer.type == "pair_pattern":
            if inner != outer.child_by_field_name("value"):
                return False
        elif outer.type not in ("object_pattern", "array_pattern", "rest_pattern"):
            break
        inner, outer = outer, outer.parent
    if outer is None:
        return False
    if outer.type == "formal_parameters":
        return True
    if outer.type == "for_in_statement":
        return inner == outer.child_by_field_name("left") and outer.child_by_field_name("kind") is not None
    binds = {"variable_declarator": "name", "function_declaration": "name", "class_declaration": "name",
             "function_expression": "name", "arrow_function": "parameter", "catch_clause": "parameter"}  # fmt: skip
    return outer.type in binds and inner == outer.child_by_field_name(binds[outer.type])


def _is_changed(node: Node) -> bool:
    parent = node.parent
    if parent is None:
        return False
    if parent.type in ("assignment_expression", "augmented_assignment_expression"):
        return node == parent.child_by_field_name("left")
    return parent.type == "update_expression"


def _is_only_assigned(node: Node) -> bool:
    parent = node.parent
    return parent is not None and parent.type == "assignment_expression" and node == parent.child_by_field_name("left")


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _line(node: Node) -> int:
    return node.start_point[0] + 1


def _text(node: Node) -> str:
    return (node.text or b"").decode()
