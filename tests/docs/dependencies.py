"""The packages that `attn` installs, with their licences, from what they say of themselves."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement

from tests.helpers import ROOT

_CUDA_PACKAGES = ("nvidia-", "cuda-", "triton")  # of other builds of torch
_EXTRAS = ("batch", "zstd", "plot", "models")  # those for users; the others are for who changes attn
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def installed_with(names: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Return the packages of these names and everything that they need on this machine, by name."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found or name.startswith(_CUDA_PACKAGES):
            continue
        found[name] = metadata.distribution(name)
        requirements = map(Requirement, found[name].requires or ())
        waiting += [
            needed.name for needed in requirements if not needed.marker or needed.marker.evaluate({"extra": ""})
        ]
    return dict(sorted(found.items()))


def licence_of(package: metadata.Distribution) -> str:
    """Return what a package says of its licence: the expression, else the classifier, else the text's first line."""
    classifiers = [text for text in package.metadata.get_all("Classifier") or () if text.startswith("License ::")]
    said = package.metadata.get("License-Expression") or (classifiers or [package.metadata.get("License") or ""])[0]
    return said.rpartition(" :: ")[2].split("\n")[0]


def dependency_table() -> str:
    """Return a Markdown table: each package that attn needs, what needs it, and its licence."""
    rows = ["| package | installed with | licence |", "|---|---|---|"]
    listed: set[str] = set()
    groups = {"attn": PROJECT["dependencies"]} | {
        f"the extra `{extra}`": PROJECT["optional-dependencies"][extra] for extra in _EXTRAS
    }
    direct = {Requirement(text).name for requirements in groups.values() for text in requirements}
    for what, requirements in groups.items():
        for name, package in installed_with(Requirement(text).name for text in requirements).items():
            if name not in listed:
                shown = f"**{name}**" if name in direct else name
                rows.append(f"| {shown} | {what} | {licence_of(package)} |")
                listed.add(name)
    return "\n".join(rows) + "\n"
