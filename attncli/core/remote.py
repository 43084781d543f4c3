"""One long problem computed by workers: what is sent to them, what they compute, and what they return.

Entries: `attend_remotely` where the problem is, `compute_block` on a worker. The unit of work is the tile, as on one
machine, so that the result is the same. Queries are sent with the tiles that need them, keys and values once to every
worker; each worker returns its part of the steps that are kept, and nothing else.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from attncli.core.attention import TileResults, attend_tile
from attncli.core.bands import Slice
from attncli.core.dropout import DropoutStream
from attncli.core.inputs import Inputs
from attncli.core.layers import nonfinite_mask, repeat_kv
from attncli.core.recorder import Recorder
from attncli.core.sdpa import try_sdpa
from attncli.core.tiles import KeysValues, Tile, assemble_tiles, iter_tiles
from attncli.parts.projections import PROJECTION_PARAMETERS
from attncli.plan import Plan
from attncli.plan.schedule import MAX_SDPA_MASK_BYTES
from attncli.types import Json, NumpyArray
from attncli.validation.fields import as_numpy, shape_of

_MAX_SCORES_PER_TASK = 2**28  # some seconds of one core: a worker's death costs no more
_MIN_SCORES_PER_TASK = 2**20
_MAX_SDPA_ROWS = 1024  # rows that PyTorch's kernel is given at a time: with fewer it adds up in another order
_MIN_TASKS_PER_WORKER = 8  # so that all workers end at about the same time
_MAX_BYTES_PER_TASK = 2**24  # of queries sent in a task, and of steps returned


class _NotFiniteError(Exception):
    """PyTorch's kernel was planned, and values are not finite."""


@dataclass(eq=False)
class SharedTensors:
    """What every task needs; it is sent to each worker once."""

    plan: Plan  # stripped of what tiles do not need
    k: NumpyArray  # (b, g, m, d)
    v: NumpyArray | None  # (b, g, m, c)
    checkpoints: dict[int, Tensor] = field(default_factory=dict)  # of the dropout stream, shared by a worker's tasks
    _tensors: KeysValues | None = field(default=None, init=False)

    def tensors(self, inputs: Inputs) -> KeysValues:
        """Return k (b, h, m, d), v (b, h', m, c) and where v is not finite; made by a worker's first task for all.

        They are copies: products of the same numbers differ with how these are aligned, and what was received lies anywhere.
        """
        if self._tensors is None:
            shapes, kv_map = self.plan.shapes, self.plan.variant.kv_map
            k = repeat_kv(inputs.to_tensor(self.k).clone(), shapes.heads, kv_map)
            v = None if self.v is None else repeat_kv(inputs.to_tensor(self.v).clone(), shapes.mixed_heads, kv_map)
            self._tensors = KeysValues(k, v, nonfinite_mask(v))
        return self._tensors

    def __reduce__(self) -> tuple[object, ...]:
        return SharedTensors, (self.plan, self.k, self.v)  # without what this process made of it


class TileBlock(NamedTuple):
    """Tiles that follow each other, of the same batch items and heads: the work of one task."""

    tiles: tuple[Tile, ...]

    @property
    def combined_tile(self) -> Tile:
        """All its rows and all keys, as one tile."""
        first, last = self.tiles[0], self.tiles[-1]
        return Tile(first.batch, first.heads, slice(first.rows.start, last.rows.stop))


class BlockTask(NamedTuple):
    """A block, and its queries."""

    block: TileBlock
    q: NumpyArray  # (b, h, n, d), of the batch items, heads and rows of the block


class BlockResult(NamedTuple):
    """What a worker returns of a block."""

    z: NumpyArray | None  # (b, h', n, c)
    steps: dict[str, tuple[str, tuple[str, ...], NumpyArray]]  # name → formula, axes, values
    warnings_seen: set[str]
    warning_rows: dict[str, NumpyArray]


class WorkerPool(Protocol):
    """The workers that compute the tasks."""

    @property
    def worker_count(self) -> int:
        """How many tasks they compute at a time."""

    def compute_tasks(
        self, shared_tensors: SharedTensors, tasks: Iterator[BlockTask]
    ) -> Generator[tuple[TileBlock, BlockResult | None]]:
        """Yield the result of every task, in whatever order; None: PyTorch's kernel cannot compute it."""


def attend_remotely(
    worker_pool: WorkerPool, plan: Plan, q: Tensor, k: Tensor, v: Tensor | None, inputs: Inputs, recorder: Recorder
) -> TileResults:
    """Attend on workers, and record the steps that they return: q (b, h, n, d), k, v (b, g, m, ·) → (b, h', ·, c)."""
    shared_tensors = SharedTensors(strip_plan(plan), as_numpy(k), None if v is None else as_numpy(v))
    tasks = (
        BlockTask(block, as_numpy(block.combined_tile.select(q, has_key_axis=False)))
        for block in make_tile_blocks(plan, worker_pool.worker_count)
    )
    results = worker_pool.compute_tasks(shared_tensors, tasks)
    for block, result in results:
        if result is None:  # what the kernel cannot compute of one block it computes of none, as on one machine
            results.close()
            plan = recorder.plan = plan.with_schedule("tiled")
            yield from attend_remotely(worker_pool, plan, q, k, v, inputs, recorder)
            return
        recorder.import_tile(block.combined_tile, result.steps, result.warnings_seen, result.warning_rows)
        yield block.combined_tile, None if result.z is None else torch.from_numpy(result.z).to(q.dtype)


def make_tile_blocks(plan: Plan, worker_count: int) -> Iterator[TileBlock]:
    """Group the tiles of a plan into blocks: enough of them for all workers, and each worth sending."""
    wanted_scores = plan.score_count // (_MIN_TASKS_PER_WORKER * worker_count)
    max_scores = max(_MIN_SCORES_PER_TASK, min(_MAX_SCORES_PER_TASK, wanted_scores))
    key_count = plan.size.keys
    if plan.schedule == "fused":  # the kernel takes more rows at a time than a tile has
        row_count = _MAX_SDPA_ROWS
        if plan.is_masked:  # it is handed a mask, and scores may be made as well
            row_count = min(row_count, MAX_SDPA_MASK_BYTES // (key_count * (1 + plan.item_size)))
        row_count = row_count - row_count % 256 if row_count > 256 else max(1, row_count)
        plan = replace(plan, tile_size=key_count * row_count, keys_per_block=0)
    matrix_width = sum(key_count for _ in plan.matrix_steps)
    bytes_per_row = plan.item_size * (plan.shapes.d + (plan.shapes.c or 0) + matrix_width + plan.top)
    tiles: list[Tile] = []
    scores = rows = 0
    for tile in iter_tiles(plan):
        item_heads = len(range(plan.size.batch or 1)[tile.batch]) * len(range(plan.shapes.heads)[tile.heads])
        tile_rows = item_heads * (tile.rows.stop - tile.rows.start)
        tile_scores = tile_rows * tile.key_count
        is_apart = tiles and (tile.batch, tile.heads) != (tiles[-1].batch, tiles[-1].heads)
        is_full = scores + tile_scores > max_scores or (rows + tile_rows) * bytes_per_row > _MAX_BYTES_PER_TASK
        if tiles and (is_apart or is_full):
            yield TileBlock(tuple(tiles))
            tiles, scores, rows = [], 0, 0
        tiles.append(tile)
        scores, rows = scores + tile_scores, rows + tile_rows
    if tiles:
        yield TileBlock(tuple(tiles))


@dataclass(frozen=True)
class ShapeOnly:
    """Stands for an array that is not sent, of which tiles need the shape alone."""

    shape: tuple[int, ...]


def strip_plan(plan: Plan) -> Plan:
    """Return the plan with what tiles need, without what is large and needed only before or after them."""
    problem = plan.problem
    projection_parameters = {parameter.name for parameter in PROJECTION_PARAMETERS}
    memory = {"embeddings": ShapeOnly(shape_of(problem.memory["embeddings"]))} if problem.memory else None
    parameters = {name: as_numpy(x) for name, x in problem.parameters.items() if name not in projection_parameters}
    stripped: Json = {"memory": memory, "parameters": parameters}
    for declared in fields(problem):
        value, needed = getattr(problem, declared.name), declared.metadata.get("on_workers")
        if declared.name in stripped or value is None:
            continue
        if needed == "nothing":
            stripped[declared.name] = {} if declared.default_factory is dict else None
        elif needed == "shape":
            stripped[declared.name] = ShapeOnly(shape_of(value))
        elif needed == "values" and not isinstance(value, str):
            stripped[declared.name] = as_numpy(value)
    return replace(
        plan,
        problem=replace(problem, **stripped),
        chain=tuple(replace(link, derivation=None, gradient_factor=None) for link in plan.chain),
        steps={name: tuple(axes) for name, axes in plan.steps.items()},
        warnings=(),
        shared=None,
    )


def compute_block(shared_tensors: SharedTensors, task: BlockTask) -> BlockResult | None:
    """Compute one task on a worker; None if PyTorch's kernel was planned and cannot compute it.

    Raises:
        CannotError: the device is not available, or the kernel was asked for and cannot be used.
    """
    block, whole = task.block, task.block.combined_tile
    plan = shared_tensors.plan
    queries = np.arange(plan.size.queries) if plan.computed_queries is None else plan.computed_queries  # (n,)
    rows = queries[whole.rows]  # (n,), n those of the block from here on
    plan = replace(plan, computed_queries=rows)
    inputs = Inputs(plan)
    recorder = Recorder(plan, inputs.caller_memory, inputs.drawn_parameters)
    q = inputs.to_tensor(task.q).clone()  # (b, h, n, d)
    keys_values = shared_tensors.tensors(inputs)
    stream = inputs.dropout_source if isinstance(inputs.dropout_source, DropoutStream) else None
    if stream:
        stream.resume_from(shared_tensors.checkpoints)

    def attend_tiles() -> TileResults:
        for tile_of_plan in block.tiles:
            tile = tile_of_plan._replace(rows=_shift_rows(tile_of_plan.rows, whole.rows.start))
            recorder.begin_tile(tile)
            if plan.schedule == "fused" and keys_values.v is not None:
                z = try_sdpa(plan, q[:, :, tile.rows], keys_values.k, keys_values.v, inputs, recorder, tile)
                if z is None:
                    raise _NotFiniteError
            else:
                z = attend_tile(plan, tile.split_bands(q[:, :, tile.rows]), keys_values, inputs, recorder, tile)
            yield tile, z

    try:
        z = assemble_tiles(plan, attend_tiles())
    except _NotFiniteError:
        return None
    if stream:
        stream.checkpoint()
    whole = whole._replace(rows=slice(0, len(rows)))
    steps, warning_rows = recorder.export_tile(whole)
    context = None if z is None else as_numpy(whole.select(z, has_key_axis=False))
    return BlockResult(context, steps, recorder.warnings.codes, warning_rows)


def _shift_rows(rows: Slice, start: int) -> Slice:
    """Count rows from another start."""
    return slice(rows.start - start, rows.stop - start)
