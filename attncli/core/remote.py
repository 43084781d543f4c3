"""One long problem computed elsewhere: what travels to a worker, what it does there, and what comes back.

The unit of work is the tile, as on one machine, so that the result is the same. Queries travel with the tiles that
need them, keys and values once to every worker; a piece of each step that is kept comes back, and nothing else.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from attncli.core.attention import TileResults, attend_tile, nonfinite_mask, repeat_kv
from attncli.core.inputs import Inputs
from attncli.core.recorder import Recorder
from attncli.core.sdpa import try_sdpa
from attncli.core.tiles import DropoutStream, Slice, Tile, assemble_tiles, iter_tiles
from attncli.parts.projections import PROJECTION_PARAMETERS
from attncli.plan import Plan
from attncli.plan.schedule import MAX_SDPA_MASK_BYTES, item_size, matrix_steps, score_count
from attncli.types import Array, Json, NumpyArray
from attncli.validation.fields import as_numpy, shape_of

_MAX_SCORES_PER_TASK = 2**28  # cells in a task: some seconds of one core, so that a worker that dies costs no more
_MIN_SCORES_PER_TASK = 2**20
_MAX_SDPA_ROWS = 1024  # rows that the kernel is given at a time: with fewer it adds up in another order
_MIN_TASKS_PER_WORKER = 8  # tasks for each worker at least, so that all of them end at about the same time
_MAX_BYTES_PER_TASK = 2**24  # of queries in a task, and of steps that it sends back


@dataclass(eq=False)
class SharedTensors:
    """What every task needs: it travels to each worker once."""

    plan: Plan  # without what the tiles do not need
    k: NumpyArray  # (b, g, m, d)
    v: NumpyArray | None  # (b, g, m, c)
    checkpoints: dict[int, Tensor] = field(default_factory=dict)  # where a worker's tasks have been in what is drawn

    def tensors(self, inputs: Inputs) -> tuple[Tensor, Array, Tensor | None]:
        """k (b, h, m, d), v (b, h', m, c) and where v is not finite: made by the first task of a worker, for all.

        Copies, for what arrives lies anywhere in memory, and products of the same numbers differ with where they lie.
        """
        if "ready" not in vars(self):
            shapes, how = self.plan.shapes, self.plan.variant.kv_map
            k = repeat_kv(inputs.to_tensor(self.k).clone(), shapes.heads, how)
            v = None if self.v is None else repeat_kv(inputs.to_tensor(self.v).clone(), shapes.mixed_heads, how)
            vars(self)["ready"] = k, v, nonfinite_mask(v)
        ready: tuple[Tensor, Array, Tensor | None] = vars(self)["ready"]
        return ready

    def __reduce__(self) -> tuple[object, ...]:
        return SharedTensors, (self.plan, self.k, self.v)  # from one worker to the next without what it made of it


class TileBlock(NamedTuple):
    """Tiles that follow each other, of the same batch items and heads: one task."""

    tiles: tuple[Tile, ...]

    @property
    def combined_tile(self) -> Tile:
        """All its rows, as one."""
        first, last = self.tiles[0], self.tiles[-1]
        return first._replace(rows=slice(first.rows.start, last.rows.stop), keys=Tile().keys)


class BlockTask(NamedTuple):
    """A block, and its queries."""

    block: TileBlock
    q: NumpyArray  # (b, h, n, d), of the batch items, heads and rows of the block


class BlockResult(NamedTuple):
    """What came of a block."""

    z: NumpyArray | None  # (b, h', n, c)
    steps: dict[str, tuple[str, tuple[str, ...], NumpyArray]]  # formula, axes, values
    warnings_seen: set[str]
    warning_rows: dict[str, NumpyArray]


class WorkerPool(Protocol):
    """Those who take the tasks."""

    @property
    def worker_count(self) -> int:
        """How many tasks they do at a time."""

    def run(
        self, shared_tensors: SharedTensors, tasks: Iterator[BlockTask]
    ) -> Generator[tuple[TileBlock, BlockResult | None]]:
        """Every task done, in whatever order."""


def attend_remotely(
    worker_pool: WorkerPool, q: Tensor, k: Tensor, v: Tensor | None, inputs: Inputs, recorder: Recorder
) -> TileResults:
    """Every query by someone else's hands: q (b, h, n, d), k, v (b, g, m, ·) → (b, h', ·, c); steps that come back are noted."""
    plan = recorder.plan
    common = SharedTensors(strip_plan(plan), as_numpy(k), None if v is None else as_numpy(v))
    tasks = (
        BlockTask(block, as_numpy(block.combined_tile.select(q, has_key_axis=False)))
        for block in make_tile_blocks(plan, worker_pool.worker_count)
    )
    pieces = worker_pool.run(common, tasks)
    for block, piece in pieces:
        if piece is None:  # what the kernel cannot do of one block it does of none, as on one machine
            pieces.close()
            recorder.fall_back_to_tiles()
            yield from attend_remotely(worker_pool, q, k, v, inputs, recorder)
            return
        recorder.import_tile(block.combined_tile, piece.steps, piece.warnings_seen, piece.warning_rows)
        yield block.combined_tile, None if piece.z is None else torch.from_numpy(piece.z).to(q.dtype)


def make_tile_blocks(plan: Plan, worker_count: int) -> Iterator[TileBlock]:
    """The tiles of a plan in handfuls: enough of them to go round, and each worth sending."""
    share = max(
        _MIN_SCORES_PER_TASK, min(_MAX_SCORES_PER_TASK, score_count(plan) // (_MIN_TASKS_PER_WORKER * worker_count))
    )
    if plan.schedule == "fused":  # a kernel takes more at a time, and where it is handed a mask that is to be had too
        m = plan.size.keys
        rows = (
            min(_MAX_SDPA_ROWS, MAX_SDPA_MASK_BYTES // (m * (1 + item_size(plan))))
            if plan.is_masked
            else _MAX_SDPA_ROWS
        )
        plan = replace(plan, tile_size=m * max(1, rows - rows % 256 if rows > 256 else rows))
    width = plan.shapes.d + (plan.shapes.c or 0) + sum(plan.size.keys for _ in matrix_steps(plan)) + plan.top
    held: list[Tile] = []
    size = count = 0
    for tile in iter_tiles(plan):
        many = len(range(plan.size.batch or 1)[tile.batch]) * len(range(plan.shapes.heads)[tile.heads])
        n = many * (tile.rows.stop - tile.rows.start)
        m = tile.key_count
        apart = held and (tile.batch, tile.heads) != (held[-1].batch, held[-1].heads)
        if held and (apart or size + n * m > share or (count + n) * width * item_size(plan) > _MAX_BYTES_PER_TASK):
            yield TileBlock(tuple(held))
            held, size, count = [], 0, 0
        held.append(tile)
        size, count = size + n * m, count + n
    if held:
        yield TileBlock(tuple(held))


@dataclass(frozen=True)
class ShapeOnly:
    """An array that stayed at home: its shape is all that is asked of it."""

    shape: tuple[int, ...]


def strip_plan(plan: Plan) -> Plan:
    """The plan with what tiles need, and nothing that is large and needed only before or after them."""
    p = plan.problem
    projected = {parameter.name for parameter in PROJECTION_PARAMETERS}
    memory = {"embeddings": ShapeOnly(shape_of(p.memory["embeddings"]))} if p.memory else None
    learned = {name: as_numpy(x) for name, x in p.parameters.items() if name not in projected}
    needed: Json = {"memory": memory, "parameters": learned}
    for declared in fields(p):
        x, what = getattr(p, declared.name), declared.metadata.get("on_workers")
        if declared.name in needed or x is None:
            continue
        if what == "nothing":
            needed[declared.name] = {} if declared.default_factory is dict else None
        elif what == "shape":
            needed[declared.name] = ShapeOnly(shape_of(x))
        elif what == "values" and not isinstance(x, str):
            needed[declared.name] = as_numpy(x)
    problem = replace(p, **needed)
    chain = tuple(replace(link, derivation=None, gradient_factor=None) for link in plan.chain)
    steps = {name: tuple(axes) for name, axes in plan.steps.items()}
    return replace(plan, problem=problem, chain=chain, steps=steps, tokens=(), k_tokens=(), warnings=(), shared=None)


def compute_block(shared_tensors: SharedTensors, task: BlockTask) -> BlockResult | None:
    """One task, on a worker. Nothing, if the kernel was planned and cannot be used.

    Raises:
        CannotError: the device is not there, or the kernel was asked for and cannot be used.
    """
    (block, queries), whole = task, task.block.combined_tile
    before = shared_tensors.plan
    rows = (np.arange(before.size.queries) if before.computed_queries is None else before.computed_queries)[
        whole.rows
    ]  # (n,)
    plan = replace(before, computed_queries=rows)
    given = Inputs(plan)
    note = Recorder(plan, given)
    q, (k, v, odd) = given.to_tensor(queries).clone(), shared_tensors.tensors(given)
    if isinstance(given.dropout_source, DropoutStream):
        given.dropout_source.resume_from(shared_tensors.checkpoints)

    def attend_tiles() -> TileResults:
        for tile in block.tiles:
            at = tile._replace(rows=_shift_rows(tile.rows, whole.rows.start))
            note.begin_tile(at)
            if plan.schedule == "fused":
                yield at, try_sdpa(q[:, :, at.rows], k, v, given, note, at)
            else:
                yield at, attend_tile(q[:, :, at.rows], k, v, odd, given, note, at)

    z = assemble_tiles(plan, attend_tiles())
    if note.plan.schedule != plan.schedule:
        return None
    if isinstance(given.dropout_source, DropoutStream):
        given.dropout_source.checkpoint()
    own = whole._replace(rows=slice(0, len(rows)))
    steps, said = note.export_tile(own)
    return BlockResult(
        None if z is None else as_numpy(own.select(z, has_key_axis=False)), steps, note.warnings_seen, said
    )


def _shift_rows(rows: Slice, start: int) -> Slice:
    return slice(rows.start - start, rows.stop - start)
