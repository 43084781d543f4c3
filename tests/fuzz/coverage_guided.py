"""The readers, fuzzed by what new lines an input reaches: `pip install atheris`, then `python -m tests.fuzz.coverage_guided SECONDS [SEED]`.

Atheris is needed for nothing else, and therefore no dependency of the tests. It ends at the first failure, and writes its input to `fuzz-failures/`.
"""

from __future__ import annotations

import random
import sys
import tempfile
import warnings
from pathlib import Path


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["attncli"]):
        import attncli.check.figure_files
        import attncli.plan
        import attncli.readers.csv
        import attncli.readers.json
        import attncli.readers.npz
        import attncli.readers.read
        import attncli.readers.safetensors
        import attncli.validation  # noqa: F401
    from tests.fuzz.mutate_inputs import MAKERS, try_input

    seconds, seed = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "1"
    folder = Path(tempfile.mkdtemp(prefix="attn-coverage-"))
    formats, draw = [*MAKERS], random.Random(seed)
    (folder / "corpus").mkdir()
    for i in range(300):  # the first byte says the format
        content = bytes([i % len(formats)]) + MAKERS[formats[i % len(formats)]](draw)
        (folder / f"corpus/{i}").write_bytes(content)
    warnings.simplefilter("error")

    def try_one(data: bytes) -> None:
        outcome = try_input(formats[data[0] % len(formats)] if data else "json", data[1:], folder)
        if outcome.fault_kind:
            raise AssertionError(f"{outcome.fault_kind}: {outcome.fault}")

    Path("fuzz-failures").mkdir(exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-seed={seed}", "-artifact_prefix=fuzz-failures/", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], str(folder / "corpus"), "-timeout=20", *options], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
