"""Try many broken, hostile and random inputs: `python -m tests.fuzz SECONDS`, or `--count N` of each fuzzer; `--help` says more.

The seconds are shared among the fuzzers. For each it prints how many inputs were tried, accepted and refused, and what failed; inputs that
failed are written to a folder. The exit status is 1 if any did. The same seed makes the same inputs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.harness import FAULT_KINDS, MODULES, SHARES, Tally, run_fuzzer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, help="how long, shared among the fuzzers")
    parser.add_argument("--seed", type=int, default=1, help="which inputs are made (default 1)")
    parser.add_argument("--only", action="append", choices=MODULES, help="this fuzzer alone; may be given again")
    parser.add_argument("--count", type=int, help="how many inputs of each fuzzer, rather than how long")
    parser.add_argument("--first", type=int, default=0, help="the index of the first input (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: the cores)")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="folder for inputs that fail")
    given = parser.parse_args()
    if (given.seconds is None) == (given.count is None):
        parser.error("give the seconds, or --count")
    names = given.only or [*MODULES]
    jobs = min(given.jobs, given.count or given.jobs)
    print(f"seed {given.seed}, {jobs} processes; " + "; ".join(f"{kind}: {what}" for kind, what in FAULT_KINDS.items()))
    tallies, end = [], time.monotonic() + (given.seconds or 0)
    for i, name in enumerate(names):
        weight = SHARES.get(name, 1) / sum(SHARES.get(other, 1) for other in names[i:])
        share = {"count": given.count} if given.count else {"seconds": weight * (end - time.monotonic())}
        tally = run_fuzzer(name, given.seed, first=given.first, jobs=jobs, **share)
        print(f"{tally} in {tally.seconds / jobs:.0f} s", flush=True)
        print("    " + ", ".join(f"{code} {n:,}" for code, n in tally.refused.most_common()), flush=True)
        if tally.faults:
            print(tally.describe_faults(), flush=True)
            write_failures(tally, given.failures)
        tallies.append(tally)
    faults = sum((tally.fault_counts for tally in tallies), Counter())
    tried = sum(tally.tried.total() for tally in tallies)
    print(f"{tried:,} inputs, {faults.total():,} failed" + (f"; see {given.failures}/" if faults else ""))
    return 1 if faults else 0


def write_failures(tally: Tally, folder: Path) -> None:
    """Write each input that failed to a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, outcome in tally.faults:
        stem = f"{tally.name}-{tally.seed}-{index}"
        (folder / f"{stem}.{outcome.suffix}").write_bytes(outcome.content)
        (folder / f"{stem}.why").write_text(f"{outcome.fault_kind}: {outcome.fault}\n")


if __name__ == "__main__":
    sys.exit(main())
