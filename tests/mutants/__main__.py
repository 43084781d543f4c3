"""Try a sample of mutants: python -m tests.mutants [--count 300] [--seed 1] [--jobs 1]."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.mutants.line_map import FOLDER, LineMap
from tests.mutants.places import PACKAGES, Mutant, draw_mutants, list_sources
from tests.mutants.session import KILLED, NOT_BEGUN, NOT_RUN, PYTEST_WORDS, SURVIVED, TIMED_OUT, MutantSession, Nursery

# Their commands run in processes of their own, whose lines are not counted, or they say nothing about these packages; the last two use
# Polars when they are imported, whose threads are missing in forks.
IGNORED_TESTS = (
    *("tests/mutants", "tests/batch", "tests/docs", "tests/test_layers.py"),
    *("tests/proposals", "tests/readers/test_columnar_files.py"),
)
OPEN_OUTCOMES = (SURVIVED, TIMED_OUT, NOT_RUN, NOT_BEGUN)


def main() -> None:
    """Draw, try, print and write the mutants."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="how many mutants (default 300)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default 1)")
    parser.add_argument("--jobs", type=int, default=1, help="how many are tried at a time (default 1)")
    parser.add_argument("--files", nargs="*", default=[], help="only of these files, such as attncli/parts/masks.py")
    parser.add_argument("--only", nargs="*", default=[], help="only these of the sample, as path:line:column")
    parser.add_argument(
        "--again", action="store_true", help="only those of the sample that the last result says survived"
    )
    parser.add_argument("--tests", nargs="*", default=["tests"], help="folders or files of tests (default: all)")
    parser.add_argument("--marks", default="not cluster and not full", help="which tests, as pytest's -m")
    parser.add_argument("--limit", type=float, default=30, help="seconds of tests for each mutant (default 30)")
    parser.add_argument("--measuring-minutes", type=float, default=60, help="for the map of lines (default 60)")
    parser.add_argument("--result", type=Path, default=FOLDER / "result.json", help="the file to write")
    words = parser.parse_args()

    drawn, left_out, places = draw_mutants(words.count, words.seed, words.files or list_sources())
    before = {}
    if words.result.exists():
        before = {entry_key(e): e for e in json.loads(words.result.read_text())["mutants"]}
    mutants = [m for m in drawn if not words.only or m.name in words.only]
    if words.again:
        mutants = [m for m in mutants if before.get(key_of(m), {}).get("outcome") in OPEN_OUTCOMES]
    kept = [before[key_of(m)] for m in drawn if words.again and m not in mutants and key_of(m) in before]
    print(f"{places} places; {len(drawn)} mutants drawn; left out: {left_out}; to try: {len(mutants)}", flush=True)

    entries: list[dict[str, object]] = []

    def write() -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        content = {"seed": words.seed, "count": words.count, "places": places, "left_out": left_out}
        words.result.write_text(json.dumps({**content, "mutants": [*kept, *entries]}, indent=1, ensure_ascii=False))

    def try_all(session: MutantSession) -> None:
        for mutant, outcome in session.try_mutants(mutants, words.limit):
            old, new = mutant.change
            entry = {"place": mutant.name, "operator": mutant.operator, "old": old, "new": new, **asdict(outcome)}
            entries.append(entry)
            write()
            how = f"{outcome.outcome} ({outcome.tests} tests, {outcome.left} left, {outcome.seconds} s) {outcome.test}"
            print(f"{len(entries)}/{len(mutants)} {mutant.name} {mutant.operator}: {how}", flush=True)
            if outcome.outcome != KILLED:
                print(f"    - {old}\n    + {new}", flush=True)

        noticed_by = {str(entry["test"]) for entry in [*kept, *entries] if entry["outcome"] == KILLED}
        for name in sorted(noticed_by & session.items.keys()):
            if session.fails_unmutated(name):
                print(f"fails without a fault, too, when it is run alone: {name}", flush=True)

    with contextlib.ExitStack() as stack:
        nurseries = [stack.enter_context(Nursery()) for _ in range(words.jobs)]
        session = MutantSession(LineMap(), nurseries, try_all, words.measuring_minutes)
        ignored = [f"--ignore={path}" for path in IGNORED_TESTS]
        pytest.main([*words.tests, "-m", words.marks, *PYTEST_WORDS, *ignored], plugins=[session])
    print_counts([*kept, *entries])


def key_of(mutant: Mutant) -> tuple[str, str]:
    return mutant.name, mutant.operator


def entry_key(entry: dict[str, str]) -> tuple[str, str]:
    return entry["place"], entry["operator"]


def print_counts(entries: list[dict[str, object]]) -> None:
    """Print a table of the outcomes by package."""
    outcomes = (KILLED, *OPEN_OUTCOMES)
    print(f"{'':8}{'tried':>8}" + "".join(f"{name:>18}" for name in outcomes))
    for package in (*PACKAGES, ""):
        mine = [e for e in entries if str(e["place"]).startswith(f"attncli/{package}")]
        counts = Counter(e["outcome"] for e in mine)
        share = f"{counts[KILLED] / len(mine):>8.1%}" if mine else ""
        print(f"{package or 'all':8}{len(mine):>8}" + "".join(f"{counts[name]:>18}" for name in outcomes) + share)


if __name__ == "__main__":
    sys.exit(main())
