"""`--help` fits a screen, `--help-all` shows every option, and what is no command is answered with the one to type."""

from __future__ import annotations

import io

import pytest
import typer

from attncli.cli.app import app
from attncli.cli.environment import Environment
from attncli.cli.main import main
from tests.helpers import SAMPLES

COMMANDS = ("compute", "explain", "check", "plot", "batch", "capture", "demo", "list", "config", "schema")
_SCREEN_LINES = 50


@pytest.fixture
def help_of(monkeypatch):
    """Return a function that gives the help of a command line on 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: str) -> str:
        out, err = io.StringIO(), io.StringIO()
        status = main(words, Environment(io.StringIO(), out, err, {}, columns=80))
        assert (status, err.getvalue()) == (0, "")
        return out.getvalue()

    return run


def option_names(command: str) -> set[str]:
    group = typer.main.get_command(app)
    return {name for parameter in group.commands[command].params for name in parameter.opts if name.startswith("--")}


@pytest.mark.parametrize("words", [(), *((command,) for command in COMMANDS)], ids=str)
def test_help_fits_a_screen(help_of, words):
    shown = help_of(*words, "--help")

    assert len(shown.splitlines()) <= _SCREEN_LINES
    assert max(map(len, shown.splitlines())) <= 80
    assert "<bool>" not in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_help_all_shows_every_option_whole(help_of, command):
    shown = help_of(command, "--help-all")

    missing = {name for name in option_names(command) if f"{name} " not in shown and f"{name}," not in shown}
    assert not missing - {"--vector-field", "--token-field"}  # the second names of options, folded in their cell
    assert "<bool>" not in shown
    assert "temperat…" not in shown


def test_the_short_help_leaves_out_and_says_where_the_rest_is(help_of):
    short, whole = help_of("compute", "--help"), help_of("compute", "--help-all")

    assert "--softcap" not in short
    assert "--softcap" in whole
    assert "attn compute --help-all shows every option" in short
    assert "attn compute --help-all" not in whole
    assert "─ Variant ─" in whole


@pytest.mark.parametrize(
    ("command", "only_there"),
    [("batch", "the folder for results"), ("check", "digits, close or flash"), ("explain", "--blank")],
)
def test_each_command_has_its_own_everyday_options(help_of, command, only_there):
    assert only_there in help_of(command, "--help")
    assert only_there not in help_of("compute", "--help")


def test_a_shell_completes_options_that_the_short_help_leaves_out():
    command = typer.main.get_command(app).commands["compute"]
    context = typer.Context(command, info_name="compute")

    completed = {item.value for item in command.shell_complete(context, "--so")}

    assert completed == {"--softcap"}


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["help"], "attn --help, or attn COMMAND --help"),
        (["help", "explain"], "attn explain --help"),
        (["version"], "attn --version"),
        (["nosuch.csv"], "to compute a file: attn compute nosuch.csv"),
        ([str(SAMPLES)], f"to compute every file in it: attn batch {SAMPLES} -o DIR"),
        (["chek", "x.json"], "did you mean 'check'?"),
        (["heatmap", "x.json"], "did you mean 'plot'?"),
        (["verify", "x.json"], "did you mean 'check'?"),
        (["frob"], "the commands are batch, capture, check, compute, config, demo, explain, list, plot and schema"),
        (["--json", "x.csv"], "options of a command go after it: attn compute INPUT --json; attn --help lists the commands"),
        (["compute", "x.csv", "--explain"], "attn compute --help-all lists every option"),
        (["compute", "x.csv", "--sofcap", "3"], "did you mean '--softcap'?"),
    ],
)  # fmt: skip
def test_what_is_no_command_is_answered_with_what_to_type(attn, words, way_out):
    done = attn(*words)

    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error[usage]: No such ")
    assert done.err.endswith(f"  = help: {way_out}\n")
