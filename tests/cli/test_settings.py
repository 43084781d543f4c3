"""Settings: where they are found, which one wins, what is refused and where it was set, and what a result says of them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from tests.helpers import SAMPLES
from tests.readers.test_costs import MAX_CPU_SECONDS


@pytest.fixture
def set_up(attn, tmp_path):
    """Return a function that writes a file of settings, and let there be tokens.csv."""
    shutil.copy(SAMPLES / "tokens.csv", "tokens.csv")

    def write(text: str, path: str = "attn.toml") -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")

    return write


def rows(done) -> dict[str, tuple[str, str]]:
    """The rows of `attn config --json` that are not defaults: setting → value and origin."""
    assert done.status == 0
    return {row["setting"]: (row["value"], row["from"]) for row in done.json["settings"] if row["from"] != "default"}


# ── where they are found, and which wins ─────────────────────────────────────────────────────────
def test_a_setting_holds_where_the_command_line_says_nothing(attn, set_up):
    set_up('mask = "causal"\nprecision = 2\nonly = ["weights"]\n')

    done = attn("compute", "tokens.csv")
    assert "0 the          1.00       ·       ·   1.00\n" in done.out
    assert "scores" not in done.out.splitlines()[3:]
    assert done.err.startswith("settings: mask causal (attn.toml)\n")
    typed = attn("compute", "tokens.csv", "--mask", "full", "--precision", "3")
    assert "   0.233   0.384   1.000\n" in typed.out
    assert "settings:" not in typed.err
    assert (
        attn("compute", "tokens.csv", "--no-config").out
        == attn("compute", "tokens.csv", variables={"ATTN_CONFIG": "none"}).out
    )


def test_variables_win_over_the_project_and_the_project_over_the_user(attn, set_up, tmp_path):
    set_up('mask = "causal"\nheads = 2\nscale = 3\n[compute]\nprecision = 1\n')
    set_up('heads = 4\nprecision = 9\ndevice = "cpu"\n', "home/.config/attn/attn.toml")
    variables = {
        "ATTN_SCALE": "none",
        "HOME": str(tmp_path / "home"),
        "ATTN_FULL": "yes",
        "ATTN_BACKEND": "another program's",
    }

    assert rows(attn("config", "--json", variables=variables)) == {
        "mask": ("causal", "attn.toml:1"),
        "heads": ("2", "attn.toml:2"),
        "scale": ("none", "ATTN_SCALE"),
        "device": ("cpu", "~/.config/attn/attn.toml:3"),
        "precision": ("9", "~/.config/attn/attn.toml:2"),
        "full": ("yes", "ATTN_FULL"),
        "compute.precision": ("1", "attn.toml:5"),
    }
    assert rows(attn("config", "compute", "--json", variables=variables))["precision"] == ("1", "attn.toml:5")
    assert "only" not in attn("config", "check", variables=variables).out
    files = attn("config", "--path", variables=variables).out.splitlines()
    assert files == [str(tmp_path / "home/.config/attn/attn.toml"), str(tmp_path / "attn.toml")]
    elsewhere = {"XDG_CONFIG_HOME": str(tmp_path / "home/.config")}
    assert rows(attn("config", "--json", variables=elsewhere))["precision"][0] == "9"


def test_the_nearest_file_of_the_repository_or_the_home_folder_is_read(attn, set_up, tmp_path, monkeypatch):
    set_up('mask = "causal"\n')
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")

    assert rows(attn("config", "--json")) == {}  # outside of both, the folders above are anybody's
    assert rows(attn("config", "--json", variables={"HOME": str(tmp_path)}))["mask"][1] == "../../attn.toml:1"
    (tmp_path / ".git").mkdir()
    assert rows(attn("config", "--json"))["mask"][1] == "../../attn.toml:1"
    (tmp_path / "a/pyproject.toml").write_text("[tool.ruff]\nx = 1\n")
    assert "mask" in rows(attn("config", "--json"))
    (tmp_path / "a/pyproject.toml").write_text(
        "[tool.ruff]\nx = 1\n[tool.attn]\nheads = 3\n[tool.attn.batch]\njobs = 2\n"
    )
    assert rows(attn("config", "--json")) == {
        "heads": ("3", "../pyproject.toml:4"),
        "batch.jobs": ("2", "../pyproject.toml:6"),
    }
    (tmp_path / "a/attn.toml").write_text("heads = 5\n")
    assert rows(attn("config", "--json")) == {"heads": ("5", "../attn.toml:1")}
    (tmp_path / "a/b/.git").mkdir()
    assert rows(attn("config", "--json")) == {}


def test_what_the_input_says_of_itself_wins(attn, set_up):
    set_up('mask = "causal"\nvariant = "simplified"\ndtype = "float32"\n')
    problem = json.loads((SAMPLES / "cat_sat.json").read_text()) | {
        "variant": {"mask": "window:left=1", "name": "self-attention"}
    }
    Path("p.json").write_text(json.dumps(problem))

    result = attn("compute", "p.json", "--json").json

    assert (result["variant"]["mask"], result["variant"]["scale"]) == ("window:left=1", "auto")
    assert result["settings"] == {"dtype": "attn.toml"}
    named = attn("compute", "tokens.csv", "--variant", "causal", "--json").json
    assert (named["variant"]["name"], named["settings"]) == ("causal", {"dtype": "attn.toml"})
    added = attn("compute", "tokens.csv", "--window", "1,0", "--json").json
    assert added["variant"]["mask"] == "causal and window:left=1,right=0"


# ── what a result says ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("suffix", ["json", "npz", "safetensors"])
def test_a_result_says_which_choices_were_settings_and_reads_back(attn, set_up, suffix):
    from attncli.readers.results import read_result

    set_up("heads = 2\nprecision = 3\n")

    assert attn("compute", "tokens.csv", "-o", f"r.{suffix}", variables={"ATTN_MASK": "causal"}).status == 0
    result = read_result(f"r.{suffix}")
    assert result.settings == {"heads": "attn.toml", "mask": "ATTN_MASK"}
    assert (result.variant["heads"], result.variant["mask"]) == (2, "causal")
    attn("compute", "tokens.csv", "-o", f"plain.{suffix}", "--no-config")
    assert not read_result(f"plain.{suffix}").settings


def test_the_record_is_of_the_schema_and_bare_records_leave_it_out(attn, set_up):
    import jsonschema

    set_up('mask = "causal"\n')
    result = attn("compute", "tokens.csv", "--json").json

    jsonschema.validate(result, attn("schema", "result").json)
    assert result["settings"] == {"mask": "attn.toml"}
    assert "settings" not in attn("compute", "tokens.csv", "--json", "--bare").json
    lines = attn("compute", "-", "--input-format", "ndjson", stdin=b"[[1],[2]]\n").json
    assert lines["settings"] == {"mask": "attn.toml"}


def test_only_the_command_line_silences_the_note(attn, set_up):
    set_up('quiet = true\nmask = "causal"\n')

    assert attn("compute", "tokens.csv").err == "settings: mask causal (attn.toml)\n"
    assert attn("compute", "tokens.csv", "-q").err == ""


def test_a_batch_notices_that_a_setting_has_changed(attn, set_up):
    set_up('mask = "causal"\n')
    words = ("batch", "tokens.csv", "-o", "out")

    assert "1 done, 0 failed;" in attn(*words).err
    assert "0 done, 0 failed, 1 skipped" in attn(*words).err
    assert json.loads(Path("out/tokens.json").read_text())["settings"] == {"mask": "attn.toml"}
    set_up('mask = "full"\n')
    print(attn(*words).err)
    assert "1 done, 0 failed;" in attn(*words, "--force").err
    assert json.loads(Path("out/tokens.json").read_text())["variant"]["mask"] == "full"


def test_verdicts_and_pages_say_which_choices_were_settings(attn, set_up):
    import jsonschema

    set_up('mask = "causal"\nrule = "close"\ndtype = "float32"\nprecision = 3\n')
    Path("mine.json").write_text('{"weights": [[1, 0, 0], [0.0759, 0.9241, 0], [0.1, 0.16, 0.74]]}')
    words = ("check", "tokens.csv", "--figures", "mine.json", "--json", "--no-identify")

    verdict = attn(*words).json

    assert verdict["settings"] == {"mask": "attn.toml", "rule": "attn.toml"}  # the reference is in float64
    jsonschema.validate(verdict, attn("schema", "check").json)
    assert attn(*words, "--no-reveal").json["settings"] == verdict["settings"]
    assert attn("explain", "tokens.csv", "--json").json["settings"] == {"mask": "attn.toml", "dtype": "attn.toml"}
    assert "settings" not in attn(*words, "--no-config").json
    assert "settings" not in attn("explain", "tokens.csv", "--json", "--no-config").json


def test_check_says_which_rule_was_set(attn, set_up):
    set_up('rule = "close"\nrtol = 0\natol = 0.02\n')
    Path("mine.json").write_text('{"weights": [[0.38, 0.23, 0.38], [0.06, 0.77, 0.17], [0.1, 0.16, 0.74]]}')

    done = attn("check", "tokens.csv", "--figures", "mine.json")

    assert done.err.startswith("settings: rule close (attn.toml), rtol 0 (attn.toml) and atol 0.02 (attn.toml)\n")
    assert done.status == 0, done.out


def test_a_judged_tolerance_says_which_choices_were_settings(attn, set_up):
    import jsonschema

    set_up('mask = "causal"\nrule = "flash"\natol = 0.5\ndtype = "float32"\n')

    judged = attn("check", "tokens.csv", "--rtol", "1e-3", "--json").json

    assert judged["tolerance"] == {"rtol": 0.001, "atol": 0.5, "matched": 1}
    assert judged["settings"] == {"mask": "attn.toml", "atol": "attn.toml"}  # there are no figures for a rule
    jsonschema.validate(judged, attn("schema", "check").json)
    assert "settings" not in attn("check", "tokens.csv", "--rtol", "1e-3", "--json", "--no-config").json


@pytest.mark.parametrize(
    ("text", "option", "rule"),
    [("rtol = 0.01\n", ("--rule", "digits"), "digits"), ('rule = "digits"\n', ("--rtol", "0.01"), "close")],
)
def test_a_rule_and_a_tolerance_on_the_command_line_overrule_each_others_settings(attn, set_up, text, option, rule):
    set_up(text)
    Path("mine.json").write_text('{"weights": [[0.4, 0.2, 0.4], [0.1, 0.8, 0.2], [0.1, 0.2, 0.7]]}')
    words = ("check", "tokens.csv", "--figures", "mine.json", "--no-identify", "--json")

    verdict = attn(*words, *option).json

    assert [step["rule"]["name"] for step in verdict["steps"]] == [rule]
    assert "settings" not in verdict


# ── formats ──────────────────────────────────────────────────────────────────────────────────────
def test_a_format_gives_way_to_a_suffix_and_to_json(attn, set_up):
    set_up('format = "csv"\nonly = "weights"\n')

    assert attn("compute", "tokens.csv").out.startswith("token,the,cat,sat\n")
    assert attn("compute", "tokens.csv", "--json").json["schema"] == "attn.result/1"
    assert attn("compute", "tokens.csv", "-o", "r.md").status == 0
    refused = attn("explain", "tokens.csv", "cat")
    assert refused.status == 2
    assert " --> attn.toml:1\n" in refused.err


# ── what is refused ──────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "code", "place", "said"),
    [
        ("presision = 2\n", "unknown-setting", "attn.toml:1", "did you mean 'precision'?"),
        ('# one\n\n"kv-headz" = 2\n', "unknown-setting", "attn.toml:3", "did you mean 'kv_heads'?"),
        ('[compote]\nmask = "causal"\n', "unknown-setting", "attn.toml:1", "did you mean 'compute'?"),
        ('[compute]\n[check]\nonly = "weights"\n', "unknown-setting", "attn.toml:3", "attn config check lists"),
        ("causal = true\n", "unknown-setting", "attn.toml:1", 'write mask = "causal"'),
        ('output = "x"\n', "unknown-setting", "attn.toml:1", "attn config lists all settings"),
        ("force = true\n", "unknown-setting", "attn.toml:1", "attn config lists all settings"),
        ('scheduler = "tcp://x:1"\n', "unknown-setting", "attn.toml:1", "--scheduler is given on the command line only"),
        ('input = "x"\n', "unknown-setting", "attn.toml:1", "attn config lists all settings"),
        ('from_state_dict = "x:y"\n', "unknown-setting", "attn.toml:1", "attn config lists all settings"),
        ('max_size = "1TiB"\n', "unknown-setting", "attn.toml:1", "attn config lists all settings"),
        ('device = "cuda"\n', "bad-setting", "attn.toml:1", "set ATTN_DEVICE"),
        ('mask = "cusal"\n', "unknown-mask", "attn.toml:1", "did you mean 'causal'?"),
        ("heads = 0\n", "bad-option", "attn.toml:1", "heads must be an integer from 1"),
        ("heads = true\n", "bad-setting", "attn.toml:1", "heads must be a text or a number, not true"),
        ('full = "yes"\n', "bad-setting", "attn.toml:1", "full must be true or false"),
        ("mask = {left = 1}\n", "bad-setting", "attn.toml:1", "mask cannot be an object"),
        ("[[compute]]\nheads = 1\n", "unknown-setting", "attn.toml:1", "attn config lists all settings"),
        ("mask = [1, 2]\n", "bad-setting", "attn.toml:1", "mask cannot be"),
        ("seed = 1979-05-27\n", "bad-setting", "attn.toml:1", "seed cannot be"),
        ("precision = 99\n", "bad-option", "attn.toml:1", "--precision takes an integer from 0 to 17, not 99"),
        ('heat = "onn"\n', "usage", "attn.toml:1", "'onn' is not one of 'auto', 'on', 'off'"),
        ('only = "weights,wieghts"\n', "unknown-step", "attn.toml:1", "did you mean 'weights'?"),
        ("heads = 4\nkv_heads = 3\n", "heads-mismatch", "attn.toml:1", "4 query heads cannot share 3 kv heads"),
        ("mask = causal\n", "bad-setting", "attn.toml:1:8", 'texts go in quotation marks: mask = "causal"'),
        ("x = " + "[" * 2000 + "\n", "bad-setting", "attn.toml", "not valid TOML"),
        ("# \udcff\n", "bad-setting", "attn.toml", "TOML is UTF-8"),
        ("#" * 300_000, "bad-setting", "attn.toml", "at most 256 KiB"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_setting_is_refused_where_it_stands(attn, set_up, text, code, place, said):
    Path("attn.toml").write_bytes(text.encode("utf-8", "surrogateescape"))

    done = attn("compute", "tokens.csv") if "[check]" not in text else attn("config")

    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"error[{code}]: ")
    assert f" --> {place}\n" in done.err
    assert said in done.err


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ATTN_MSAK", "causal", "did you mean ATTN_MASK?"),
        ("ATTN_CONFG", "none", "did you mean ATTN_CONFIG?"),
        ("ATTN_CONFIG", "other.toml", "ATTN_CONFIG can only be none"),
        ("ATTN_CAUSAL", "1", "set ATTN_MASK=causal"),
        ("ATTN_FULL", "maybe", "ATTN_FULL must be yes or no"),
        ("ATTN_MASK", "cusal", "the variable ATTN_MASK\n  = help: did you mean 'causal'?"),
        ("ATTN_HEADS", "3", "use 1, 2 or 4 heads; ATTN_HEADS sets heads, and --no-config leaves settings out"),
    ],
)
def test_what_cannot_be_a_variable_is_refused(attn, set_up, variable, value, said):
    done = attn("compute", "tokens.csv", variables={variable: value})

    assert done.status in (2, 3)
    assert said in done.err


def test_jobs_are_a_setting_of_batch(attn, set_up):
    done = attn("batch", "tokens.csv", "-o", "out", variables={"ATTN_JOBS": "0"})

    assert (done.status, " --> the variable ATTN_JOBS\n" in done.err) == (2, True)


def test_an_empty_variable_and_a_pipe_are_no_settings(attn, set_up):
    import os

    os.mkfifo("attn.toml")

    assert attn("compute", "tokens.csv", variables={"ATTN_MASK": ""}).status == 0


def test_the_table_shows_every_setting_with_its_default(attn, set_up):
    set_up('mask = "causal"\nchain = ["mask", "scale"]\n')
    shown = attn("config").out.splitlines()

    assert shown[0].split() == ["setting", "value", "from"]
    cells = [line.split() for line in shown]
    assert ["mask", "causal", "attn.toml:1"] in cells
    assert ["chain", "mask,scale", "attn.toml:2"] in cells
    assert ["precision", "4", "default"] in cells
    assert ["heads", "–", "default"] in cells
    assert attn("config", "compote").err.endswith("did you mean 'compute'?\n")


def test_without_a_file_the_places_for_one_are_said(attn, tmp_path):
    done = attn("config", "--path", variables={"HOME": str(tmp_path)})

    assert (done.status, done.out) == (0, "")
    assert (
        done.err
        == f"there is no file of settings; it can be attn.toml in this folder, or {tmp_path}/.config/attn/attn.toml for all that you do\n"
    )


def test_every_option_is_a_setting_or_is_only_typed():
    import typer

    from attncli.cli.app import app
    from attncli.cli.settings import _ONLY_TYPED, _OTHER_WAYS, COMMANDS, SETTING_NAMES

    commands = typer.main.get_command(app).commands
    options = {
        str(parameter.name).rstrip("_")
        for name in COMMANDS
        for parameter in commands[name].params
        if parameter.param_type_name == "option"
    }
    assert options - {"no_config", "help_all"} == {*SETTING_NAMES, *_ONLY_TYPED, *_OTHER_WAYS}


@pytest.mark.parametrize(
    ("name", "text", "status"),
    [
        ("attn.toml", ".".join("a" * 100_000) + " = 1", 2),
        ("attn.toml", "[" + '."a"' * 50_000 + "]", 2),
        ("attn.toml", f'mask = "causal"\ncompute = {{{"b." * 100_000}b = 1}}', 2),
        ("attn.toml", "\n" * 150_000 + "[compute]\nmask = 'causal'\nscore = 'dot'\n", 0),
        ("attn.toml", "# " + "." * 200_000 + '\nprecision = 2 # "a.b" ' + "." * 100 + "\n", 0),
        ("pyproject.toml", "\n" * 250_000, 0),
        ("pyproject.toml", " \t" * 100_000 + "\n[tool.attn]\nmask = 'causal'\n", 0),
    ],
    ids=range(7),
)
def test_a_file_of_settings_is_parsed_in_a_second_whatever_is_in_it(attn, set_up, name, text, status):
    """Anybody may have left it in the folder."""
    attn("compute", "tokens.csv")
    set_up(text, name)

    began = time.process_time()
    done = attn("compute", "tokens.csv", "-q")

    assert time.process_time() - began < MAX_CPU_SECONDS
    assert done.status == status
    assert status == 0 or done.err.startswith(
        "error[bad-setting]: a key of settings has at most 32 dots\n --> attn.toml:"
    )
