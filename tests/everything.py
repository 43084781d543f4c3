"""What commands load, loaded: whoever imports this module and forks has forks that import nothing more.

Polars is not here: who forks after it was used has forks without its threads.
"""

from __future__ import annotations

import gc
import importlib
import io
import pkgutil

import distributed  # noqa: F401  # starts no thread until it is used
import torch  # noqa: F401

import attncli
from attncli.cli import main
from attncli.cli.environment import Environment
from tests.helpers import SAMPLES

for module in pkgutil.walk_packages(attncli.__path__, "attncli."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

# Each command makes its options, and reads and shows something, once.
SAMPLE = str(SAMPLES / "cat_sat.json")
for words in (["compute", SAMPLE], ["explain", SAMPLE], ["check", SAMPLE], ["batch", "--help"], ["demo"], ["list"]):
    main(words, Environment(io.StringIO(), io.StringIO(), io.StringIO()))

gc.collect()
gc.freeze()  # forks share these pages as long as nobody collects them
