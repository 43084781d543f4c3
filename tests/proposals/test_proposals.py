"""What an error proposes, done literally, gives the right figures or another error, and never other figures."""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars
import pytest

from tests.helpers import ROOT, Run, as_array
from tests.proposals import (
    of_checkpoints,
    of_commands,
    of_fields,
    of_figures,
    of_files,
    of_names,
    of_options,
    of_tables,
)
from tests.proposals.figures import Figures, Proposal, Written

pytestmark = pytest.mark.slow

PROPOSALS: list[Proposal] = [
    proposal
    for module in (of_names, of_options, of_fields, of_checkpoints, of_files, of_tables, of_figures, of_commands)
    for proposal in module.PROPOSALS
]


def write_files(files) -> None:
    for name, content in files.items():
        if name == "-":  # standard input
            continue
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_bytes(name, content))


def to_bytes(name: str, content) -> bytes:
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    if name.endswith(".npz"):
        archive = io.BytesIO()
        np.savez(archive, **content)
        return archive.getvalue()
    return json.dumps(content, default=lambda x: x.tolist()).encode()


def follow(proposal: Proposal) -> tuple[str, dict[str, bytes]]:
    """Return the command and the files as an error proposes them, by one rule.

    A name that is offered takes the place of the slip; else what is proposed is written out in `followed` and `mended`;
    and where neither is, the proposed options stand behind the command.
    """
    files = {name: to_bytes(name, content) for name, content in proposal.mended.items()}
    if proposal.slip:
        name = re.fullmatch("did you mean '(.+)'\\?", proposal.says)[1]
        files = {
            n: to_bytes(n, c).replace(f'"{proposal.slip}"'.encode(), f'"{name}"'.encode())
            for n, c in proposal.files.items()
            if n.endswith(".json")
        }
        return proposal.command.replace(proposal.slip, name), files
    if proposal.followed:
        return proposal.followed, files
    assert proposal.says.startswith("-"), "only options stand behind a command as they are"
    return f"{proposal.command} {proposal.says}", files


def run_commands(attn, commands: str, stdin: bytes = b"") -> Run:
    """Run commands one after the other, and return what the last one did."""
    for command in commands.split(" && "):
        words = shlex.split(command)
        has_format = {"-o", "--output", "--format", "-f", "--json", "--bare", "--tidy"} & set(words)
        run = attn(*words, *([] if words[:1] != ["compute"] or has_format else ["--json"]), stdin=stdin)
    return run


_PROPOSED: dict[int, Run] = {}  # what was run before, in this process


def propose(attn, proposal: Proposal) -> Run:
    """Run what makes the error, with its files in the folder."""
    write_files(proposal.files)
    if id(proposal) not in _PROPOSED:
        _PROPOSED[id(proposal)] = run_commands(attn, proposal.command, standard_input(proposal))
    return _PROPOSED[id(proposal)]


def standard_input(proposal: Proposal) -> bytes:
    return to_bytes("-", proposal.files.get("-", ""))


def told(run: Run) -> str:
    """Return the errors and warnings of a run; a stream's errors stand in its answers."""
    return run.err + (run.out.replace('\\"', '"') if run.status else "")


def assert_gives(run, gives) -> None:
    """Hold what came out against figures, words of the output, or the code of an error."""
    if isinstance(gives, str):
        assert run.status in (1, 2, 3, 4)
        assert f"error[{gives}]" in run.err
        return
    assert run.status == 0, run.err
    if isinstance(gives, tuple):
        assert all(word in run.out for word in gives), run.out
        return
    if isinstance(gives, Written):
        content = Path(gives.path).read_bytes()
        if isinstance(gives.figures, tuple):
            assert all(word in content.decode() for word in gives.figures), content.decode()
            return
        result, gives = read_figures(gives.path, content, gives.figures), gives.figures
    else:
        result = run.json
    for step, expected in gives.items():
        values = np.asarray(result[step], float)
        if isinstance(expected, tuple):  # drawn: other tests know the numbers
            assert values.shape == expected
        else:
            assert values.shape == expected.shape, step
            np.testing.assert_allclose(values, as_array(expected), rtol=1e-9, atol=1e-12)


def read_figures(path: str, content: bytes, expected: Figures) -> Figures:
    """Return the figures by step that a file holds: a result, or a table with a row for each figure, in order."""
    if path.endswith(".parquet"):
        frame = polars.read_parquet(io.BytesIO(content))
        return {
            step: frame.filter(step=step)["value"].to_numpy().reshape(values.shape) for step, values in expected.items()
        }
    return np.load(io.BytesIO(content)) if path.endswith(".npz") else json.loads(content)


@pytest.mark.parametrize("proposal", PROPOSALS, ids=str)
def test_what_is_proposed_gives_the_right_figures_or_another_error(attn, proposal):
    first = propose(attn, proposal)
    command, files = follow(proposal)
    write_files(files)
    followed = run_commands(attn, command, standard_input(proposal))

    assert proposal.says in told(first)
    assert re.search(r'error\[|warning\[|"error":', told(first))
    assert_gives(followed, proposal.gives)


# ── whether all are here ─────────────────────────────────────────────────────────────────────────
# Proposals of an option that are not followed here, and why.
NOT_FOLLOWED = {
    "variables are set, and left out, by tests/cli/test_settings.py": ("--no-config leaves all settings out",),
    "it is about a machine's memory, folders or processes, which tests of batch and of memory take away": (
        "use --dtype float32, fewer steps, or workers with more memory",
        "python -m pip install",
        "--dtype float32 needs half the memory",
        "--schedule tiled computes it piece by piece",
        "--only context,log_sum_exp or --top 8 keep less",
        "or leave -j out",
        "without -j, everything is computed in this process",
        "use fewer: -j N",
        "--debug shows where it happened",
        "what attn --version prints",
    ),
    "a package that is missing is taken away by tests/readers/test_packed_text.py": ("pip install zstandard",),
    "a package that does not load is broken by tests/cli/test_plot.py": ("pip install --force-reinstall",),
    "programs that make another file are followed by tests/readers/": (
        "compute its input again; --only context -o NEW",
        "labels go beside vectors: attn compute VECTORS --with tokens=",
        "real and imaginary parts side by side: python -c",
        "convert it: python -c",
        "convert it: iconv -f MACINTOSH",
        "name them: python -c",
        "make a matrix of the numbers: python -c",
    ),
    "models are made by tests/capture/": (
        "a newer transformers may know it",
        "attn capture MODEL --text TEXT makes them",
        "--text 'Hello shiny sun!'",
        "AutoModel.from_pretrained(sys.argv[1])",
        "attn capture MODEL --list shows them",
        "--ids 1,5,7, or save the tokenizer there",
        "--ids 101,7592,102",
        "; --list shows them",
        "leave -o or --list out",
        "-o FILE for one layer, -o DIR for several",
        "--layer 5 -o ",
        "another folder, or --force to replace it",
        "--force to capture every layer again",
        "-o DIR, or a file with a suffix",
        "leave --decode",
        "--decode ",
        "--image FILE",
        "--image random, or save it there",
        "--trust-remote-code runs the code",
        "--text 'The sun is'",
        "--text TEXT",
        "leave --only out",
        "--only weights",
        "-o layer.safetensors",
    ),
    "links are made by tests/batch/test_results_stay_inside.py": ("remove it, or name another", "remove the link"),
    "addresses and clusters are those of tests/batch/": (
        "--max-size 4GiB",
        "--max-time 1h",
        "dask worker ADDRESS",
        "dask scheduler prints its address",
        "leave --jobs out: the cluster has its own workers",
    ),
    "thousands of tokens, as tests/plan/test_schedule.py has": ("--only log_sum_exp,entropy", "--at query=… one row"),
    "a page of too many numbers is made by tests/views/test_page.py": ("a part of them: --at query=0:100",),
    "a judged tolerance holds no figures, and is followed by tests/check/test_tolerances.py": (
        "leave --step out for the last",
        "leave --matched out, or say --figures none",
        "give them: --figures MINE; or leave the option out",
        "--matched 0.95",
    ),
    "what a seed draws is known by tests/parts/test_projections.py": ("no figures can be right: --seed N",),
}


def proposed_options() -> dict[str, str]:
    """Return the place of every help and every warning of the package that says an option; what is filled in is `\\0`.

    A help is what a call gives as `help`, there or by a name with “hint” in it or by a function of the same module,
    and the tables of ways out. The help of the program's options is none.
    """
    found = {}
    for path in sorted((ROOT / "attncli").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        calls = [
            node for node in nodes if isinstance(node, ast.Call) and not ast.unparse(node.func).startswith("typer.")
        ]
        helps = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "help"]
        helps += [part for help in helps if isinstance(help, ast.IfExp) for part in (help.body, help.orelse)]
        makers = {ast.unparse(help.func) for help in helps if isinstance(help, ast.Call)}
        helps += [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name in makers]
        for node in nodes:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                names = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
                helps += [node.value] if re.search("hint|HINT|WAYS_OUT|^choices$", names) else []
        texts = [node for help in helps for node in strings_of(help)]
        warnings = [node for tree in nodes[:1] for node in strings_of(tree) if re.match("[a-z]+-[a-z-]+: ", fill(node))]
        for node in [*texts, *warnings]:
            text = re.sub("^[a-z-]+: ", "", fill(node))
            if re.search(r"(?<![\w-])--?[a-z]", text):
                found[text] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


def strings_of(tree: ast.AST) -> Iterator[ast.Constant | ast.JoinedStr]:
    """Yield the texts of a piece of source, formatted ones whole, without its docstring."""
    is_documented = isinstance(tree, ast.FunctionDef | ast.Module) and ast.get_docstring(tree) is not None
    parts = {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        if is_text and node not in parts and not (is_documented and node is tree.body[0].value):
            yield node


def fill(node: ast.Constant | ast.JoinedStr) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in parts)


def test_every_proposal_of_an_option_is_followed_or_has_a_reason(attn, tmp_path, monkeypatch):
    shown = []
    for i, proposal in enumerate(PROPOSALS):
        (tmp_path / str(i)).mkdir()
        monkeypatch.chdir(tmp_path / str(i))  # nothing of another proposal is there
        shown.append(told(propose(attn, proposal)))
    reasons = [words for group in NOT_FOLLOWED.values() for words in group]
    proposed = proposed_options()

    missing = [
        f"{place}: {text!r}"
        for text, place in proposed.items()
        if not any(words in text for words in reasons)
        and not any(re.search(".*?".join(map(re.escape, text.split("\0"))), err) for err in shown)
    ]

    assert len(proposed) > 80
    assert all(any(words in text for text in proposed) for words in reasons)
    assert not missing, "\n".join(missing)
