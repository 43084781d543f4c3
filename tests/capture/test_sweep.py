"""Tiny models of the folders of transformers: docs/models.md says what each reaches, and a sample is swept again."""

from __future__ import annotations

import warnings

import pytest

from tests.capture.sweep import describe_depth, sweep_folder
from tests.helpers import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]

_ORDER = ("-", "none", "qkv", "context", "hidden with bias", "hidden")
_EVERY, _FIRST = 29, 24  # of the folders are swept where not all are


def table() -> dict[str, str]:
    """Folder → depth, of docs/models.md."""
    lines = (
        (ROOT / "docs" / "models.md").read_text(encoding="utf-8").partition("| folder | depth |")[2].splitlines()[2:]
    )
    return {cells[1].strip(): cells[2].strip() for line in lines if len(cells := line.split("|")) > 3}


def sample() -> list[object]:
    return [
        pytest.param(folder, depth, marks=() if i % _EVERY == _FIRST else pytest.mark.full)
        for i, (folder, depth) in enumerate(table().items())
    ]


@pytest.mark.parametrize(("folder", "depth"), sample())
def test_a_folder_reaches_the_depth_of_the_table(folder, depth):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the models' own code
        reached = describe_depth(sweep_folder(folder))

    assert _ORDER.index(reached) >= _ORDER.index(depth)


def test_most_folders_are_proven():
    depths = list(table().values())
    with_softmax = [depth for depth in depths if depth != "-"]

    assert len(depths) >= 430
    assert sum(depth != "none" for depth in with_softmax) >= 0.99 * len(with_softmax)
    assert sum(depth == "hidden" for depth in depths) >= 0.6 * len(depths)
    assert sum(depth.startswith("hidden") for depth in depths) >= 0.66 * len(depths)
