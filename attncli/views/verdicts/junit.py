"""Verdicts as JUnit XML, which continuous integration shows: a test case for each problem. `write_junit` is the entry."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from attncli.output_formats import RenderOptions
from attncli.text import printable, replace_undecodable
from attncli.verdict import ProblemVerdict
from attncli.views.verdicts.plain import verdict_plain
from attncli.views.verdicts.sentences import conclusion_line


def write_junit(suite: str, problems: Sequence[ProblemVerdict]) -> str:
    """Write verdicts as XML: what is wrong, too loose or not complete is a failure, its `type` says which; else an error.

    Args:
        suite: the name of the folder, or of the one problem.
        problems: with their verdicts.
    """
    failures = sum(problem.verdict is not None and not _is_passed(problem) for problem in problems)
    errors = sum(problem.verdict is None for problem in problems)
    counts = {"tests": str(len(problems)), "failures": str(failures), "errors": str(errors)}
    root = ElementTree.Element("testsuites", counts)
    group = ElementTree.SubElement(root, "testsuite", {"name": _to_xml(suite), **counts})
    for problem in problems:
        names = {"classname": _to_xml(suite), "name": _to_xml(problem.name)}
        case = ElementTree.SubElement(group, "testcase", names)
        if problem.verdict is None:
            code, _, message = problem.error.partition(": ")
            ElementTree.SubElement(case, "error", {"type": _to_xml(code), "message": _to_xml(message)})
        elif not _is_passed(problem):
            verdict = problem.verdict
            attributes = {"type": verdict.verdict, "message": _to_xml(conclusion_line(verdict))}
            failure = ElementTree.SubElement(case, "failure", attributes)
            lines = verdict_plain(verdict, RenderOptions()).splitlines()
            failure.text = "\n".join(map(_to_xml, lines))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _is_passed(problem: ProblemVerdict) -> bool:
    return problem.verdict is not None and problem.verdict.verdict in ("right", "otherwise")


def _to_xml(text: str) -> str:
    """Make text that XML may hold: no control characters, no bytes that are no text."""
    return printable(replace_undecodable(text))
