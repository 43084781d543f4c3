"""`attn compute`: read, compute, show or write."""

from __future__ import annotations

from typing import Annotated

import typer

from attncli.cli.run import run_compute
from attncli.errors import ExitStatus
from attncli.request import OutputOptions, ReadOptions, VariantRequest

EXAMPLES = """
    attn compute tokens.csv --causal
    attn compute tokens.json --variant multi-head --heads 2 --only weights,context
    attn compute tokens.csv --projection linear:dim=2 --seed 789 --json
    attn compute q.npz --mask 'causal and (window:left=2 or prefix:length=1)' -o out.npz
    attn compute long.safetensors --causal -o context.safetensors --scheduler tcp://10.0.0.1:8786
    attn compute - --input-format ndjson < problems.ndjson
"""


def compute(
    input: Annotated[
        str,
        typer.Argument(
            help="a file of embeddings, or of q, k and v; - is standard input", metavar="INPUT", show_default=False
        ),
    ],
    *,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="the workers of a Dask cluster compute a long problem: its address, or its scheduler file",
            metavar="ADDRESS|FILE",
            rich_help_panel="Cluster",
        ),
    ] = None,
    choosing: VariantRequest,
    reading: ReadOptions,
    showing: OutputOptions,
) -> ExitStatus:
    """Compute attention: scores, softmax weights and context vectors, step by step."""
    return run_compute(input, choosing, reading, showing, scheduler)
