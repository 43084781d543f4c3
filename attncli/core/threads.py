"""How many threads torch computes with."""

from __future__ import annotations

import torch


def limit_torch_to_one_thread() -> None:
    """One: others of the same kind run beside this process."""
    torch.set_num_threads(1)
