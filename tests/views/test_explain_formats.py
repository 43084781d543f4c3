"""Explain in every format: no token takes effect, LaTeX and ASCII hold what they can."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.variant import Variant
from tests.helpers import SAMPLES, draw_normal
from tests.laws.problems import ONE_CHOICE, problem_for
from tests.views.pages import page

CAT = SAMPLES / "cat_sat.json"
STRANGE = '[{"token": "<b>[red]x\\u001b[31m", "embedding": [1, 2]}, {"token": "```\\n# y", "embedding": [3, 4]}]'


@pytest.mark.parametrize("form", ["table", "plain", "markdown", "latex", "json"])
def test_tokens_take_no_effect_in_any_format(attn, tmp_path, form):
    (tmp_path / "t.json").write_text(STRANGE)

    run = attn("explain", "t.json", "0", "-f", form)

    assert run.status == 0
    assert "\x1b" not in run.out
    if form == "markdown":
        outside = "".join(
            run.out.split("```text")[0::1][i].split("\n```\n")[-1] for i in range(run.out.count("```text"))
        )
        assert "<b>" not in outside
        assert run.out.count("```") % 2 == 0


@pytest.mark.parametrize("choices", ONE_CHOICE[:: max(1, len(ONE_CHOICE) // 12)], ids=str)
def test_latex_holds_no_symbol_that_plain_latex_lacks(choices):
    variant = Variant(**{"mask": "causal and window:left=1,right=0"} | choices)
    text = page(problem_for(str(choices.get("mask")), variant=variant), variant, query=3, form="latex", grad=2)

    assert set(text) - set(map(chr, range(128))) <= set("“”")
    assert text.count("{") == text.count("}")
    assert text.count(r"\begin") == text.count(r"\end")


def test_latex_of_powers_and_of_wide_vectors(attn, tmp_path):
    np.save(tmp_path / "x.npy", draw_normal(3, 4, 12))

    text = attn("explain", "x.npy", "--full", "--normalizer", "entmax:alpha=1.3", "-f", "latex").out

    assert r"\setcounter{MaxMatrixCols}{12}" in text
    assert "^{3.3333}" in text
    assert "^3" not in text


def test_a_console_without_symbols_reads_products_as_products():
    text = page(attncli.read(CAT), None, query=1, form="plain", has_unicode=False)

    assert text.isascii()
    assert "0*1 + 1*0 + 1*1 + 2*0 = 1" in text
