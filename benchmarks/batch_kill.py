"""Kill a batch at random moments, run it again, and hold what it leaves against an undisturbed run's.

    python benchmarks/batch_kill.py [MOMENTS] [INPUTS]

Of every moment it says what was there when the process died, and how many inputs were computed twice.
The experiment is the one that the tests do once: tests/batch/killing.py.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.batch.killing import kill_at_random_moments, run_to_end, write_problems


def main() -> None:
    """Every moment in a line, for one process and for two."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        write_problems(folder / "in", size)
        run_to_end(folder / "in", folder / "whole", 1)
        for jobs in (1, 2):
            for moment in kill_at_random_moments(folder / "in", folder / "whole", folder, jobs, count):
                print(json.dumps(moment), flush=True)
    print(f"{2 * count} kills: every rerun left what an undisturbed run leaves, and no process")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
