"""Fields that are taken from other files, and what errors call an input."""

from __future__ import annotations

import re

import pytest

from attncli.batch import job as work
from attncli.batch.inputs import Input
from attncli.errors import InputError
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from tests.batch.helpers import write


@pytest.mark.parametrize(
    "command", [["compute", "x.csv"], ["batch", "x.csv", "-o", "out"], ["batch", "x.csv", "-o", "-"]]
)
@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("foo", "--with takes NAME=PATH, not 'foo'"),
        ("parameters.w_q=", "--with takes NAME=PATH"),
        ("parameters.w_q=http://127.0.0.1:1/w.csv", "--with takes a file, not an address"),
        ("parameters.w_q=-", "only INPUT can be read from standard input"),
        ("maks=m.csv", "did you mean 'mask'?"),
    ],
)
def test_what_another_file_is_taken_by_is_refused_alike(attn, tmp_path, command, pair, says):
    write(tmp_path, {"x.csv": "1,2\n3,4\n"})

    done = attn(*command, "--with", pair)

    assert (done.status, done.out) == (2, "")
    assert says in done.err
    assert not (tmp_path / "out").exists()


def test_errors_call_an_input_by_its_name_wherever_it_is_read(attn, tmp_path):
    write(tmp_path, {"n/folder.csv/x": "", "n/dangling.csvs": ""})
    job = work.Job(VariantRequest(), ReadOptions(), OutputOptions(), "json", 1, "out").for_workers()
    for name, says in {
        "n/dangling.csv": "there is no file n/dangling.csv",
        "n/folder.csv": "n/folder.csv is a folder",
    }.items():
        with pytest.raises(InputError, match=f"^{re.escape(says)}(\n|$)"):
            work.read_content(job, Input(name, "x.json"))
