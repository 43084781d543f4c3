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

from attncli.core.attention import Parts, attended, share, strange
from attncli.core.inputs import Given
from attncli.core.recorder import Notes
from attncli.core.sdpa import fused
from attncli.core.tiles import Slice, Stream, Tile, joined, tiles
from attncli.parts.projections import LEARNED
from attncli.plan import Plan
from attncli.plan.schedule import MASK, cells, item, matrices
from attncli.types import Array, Json, NumpyArray
from attncli.validation.fields import as_numpy, shape_of

_MOST = 2**28  # cells in a task: some seconds of one core, so that a worker that dies costs no more
_FEWEST = 2**20
_KERNEL = 1024  # rows that the kernel is given at a time: with fewer it adds up in another order
_ROUNDS = 8  # tasks for each worker at least, so that all of them end at about the same time
_BYTES = 2**24  # of queries in a task, and of steps that it sends back


@dataclass(eq=False)
class Common:
    """What every task needs: it travels to each worker once."""

    plan: Plan  # without what the tiles do not need
    k: NumpyArray  # (b, g, m, d)
    v: NumpyArray | None  # (b, g, m, c)
    begins: dict[int, Tensor] = field(default_factory=dict)  # where a worker's tasks have been in what is drawn

    def held(self, given: Given) -> tuple[Tensor, Array, Tensor | None]:
        """k (b, h, m, d), v (b, h', m, c) and where v is not finite: made by the first task of a worker, for all.

        Copies, for what arrives lies anywhere in memory, and products of the same numbers differ with where they lie.
        """
        if "ready" not in vars(self):
            shapes, how = self.plan.shapes, self.plan.variant.kv_map
            k = share(given.tensor(self.k).clone(), shapes.heads, how)
            v = None if self.v is None else share(given.tensor(self.v).clone(), shapes.mixed_heads, how)
            vars(self)["ready"] = k, v, strange(v)
        ready: tuple[Tensor, Array, Tensor | None] = vars(self)["ready"]
        return ready

    def __reduce__(self) -> tuple[object, ...]:
        return Common, (self.plan, self.k, self.v)  # from one worker to the next without what it made of it


class Block(NamedTuple):
    """Tiles that follow each other, of the same batch items and heads: one task."""

    tiles: tuple[Tile, ...]

    @property
    def whole(self) -> Tile:
        """All its rows, as one."""
        first, last = self.tiles[0], self.tiles[-1]
        return first._replace(rows=slice(first.rows.start, last.rows.stop), keys=Tile().keys)


class Task(NamedTuple):
    """A block, and its queries."""

    block: Block
    q: NumpyArray  # (b, h, n, d), of the batch items, heads and rows of the block


class Piece(NamedTuple):
    """What came of a block."""

    z: NumpyArray | None  # (b, h', n, c)
    steps: dict[str, tuple[str, tuple[str, ...], NumpyArray]]  # formula, axes, values
    odd: set[str]
    rows: dict[str, NumpyArray]


class Crew(Protocol):
    """Those who take the tasks."""

    @property
    def workers(self) -> int:
        """How many tasks they do at a time."""

    def __call__(self, common: Common, tasks: Iterator[Task]) -> Generator[tuple[Block, Piece | None]]:
        """Every task done, in whatever order."""


def away(crew: Crew, q: Tensor, k: Tensor, v: Tensor | None, given: Given, note: Notes) -> Parts:
    """Every query by someone else's hands: q (b, h, n, d), k, v (b, g, m, ·) → (b, h', ·, c); steps that come back are noted."""
    plan = note.plan
    common = Common(travelling(plan), as_numpy(k), None if v is None else as_numpy(v))
    tasks = (Task(block, as_numpy(block.whole.of(q, columns=False))) for block in blocks(plan, crew.workers))
    pieces = crew(common, tasks)
    for block, piece in pieces:
        if piece is None:  # what the kernel cannot do of one block it does of none, as on one machine
            pieces.close()
            note.not_fused()
            yield from away(crew, q, k, v, given, note)
            return
        note.received(block.whole, piece.steps, piece.odd, piece.rows)
        yield block.whole, None if piece.z is None else torch.from_numpy(piece.z).to(q.dtype)


def blocks(plan: Plan, workers: int) -> Iterator[Block]:
    """The tiles of a plan in handfuls: enough of them to go round, and each worth sending."""
    share = max(_FEWEST, min(_MOST, cells(plan) // (_ROUNDS * workers)))
    if plan.schedule == "fused":  # a kernel takes more at a time, and where it is handed a mask that is to be had too
        m = plan.size.keys
        rows = min(_KERNEL, MASK // (m * (1 + item(plan)))) if plan.masked else _KERNEL
        plan = replace(plan, tile=m * max(1, rows - rows % 256 if rows > 256 else rows))
    width = plan.shapes.d + (plan.shapes.c or 0) + sum(plan.size.keys for _ in matrices(plan)) + plan.top
    held: list[Tile] = []
    size = count = 0
    for tile in tiles(plan):
        many = len(range(plan.size.batch or 1)[tile.batch]) * len(range(plan.shapes.heads)[tile.heads])
        n = many * (tile.rows.stop - tile.rows.start)
        m = tile.width
        apart = held and (tile.batch, tile.heads) != (held[-1].batch, held[-1].heads)
        if held and (apart or size + n * m > share or (count + n) * width * item(plan) > _BYTES):
            yield Block(tuple(held))
            held, size, count = [], 0, 0
        held.append(tile)
        size, count = size + n * m, count + n
    if held:
        yield Block(tuple(held))


@dataclass(frozen=True)
class Hollow:
    """An array that stayed at home: its shape is all that is asked of it."""

    shape: tuple[int, ...]


def travelling(plan: Plan) -> Plan:
    """The plan with what tiles need, and nothing that is large and needed only before or after them."""
    p = plan.problem
    projected = {parameter.name for parameter in LEARNED}
    memory = {"embeddings": Hollow(shape_of(p.memory["embeddings"]))} if p.memory else None
    learned = {name: as_numpy(x) for name, x in p.parameters.items() if name not in projected}
    needed: Json = {"memory": memory, "parameters": learned}
    for declared in fields(p):
        x, what = getattr(p, declared.name), declared.metadata.get("on_workers")
        if declared.name in needed or x is None:
            continue
        if what == "nothing":
            needed[declared.name] = {} if declared.default_factory is dict else None
        elif what == "shape":
            needed[declared.name] = Hollow(shape_of(x))
        elif what == "values" and not isinstance(x, str):
            needed[declared.name] = as_numpy(x)
    problem = replace(p, **needed)
    chain = tuple(replace(link, derivation=None, gradient_factor=None) for link in plan.chain)
    steps = {name: tuple(axes) for name, axes in plan.steps.items()}
    return replace(plan, problem=problem, chain=chain, steps=steps, tokens=(), k_tokens=(), warnings=(), alike=None)


def piece(common: Common, task: Task) -> Piece | None:
    """One task, on a worker. Nothing, if the kernel was planned and cannot be used.

    Raises:
        CannotError: the device is not there, or the kernel was asked for and cannot be used.
    """
    (block, queries), whole = task, task.block.whole
    before = common.plan
    rows = (np.arange(before.size.queries) if before.rows is None else before.rows)[whole.rows]  # (n,)
    plan = replace(before, rows=rows)
    given = Given(plan)
    note = Notes(plan, given)
    q, (k, v, odd) = given.tensor(queries).clone(), common.held(given)
    if isinstance(given.kept, Stream):
        given.kept.resume(common.begins)

    def done() -> Parts:
        for tile in block.tiles:
            at = tile._replace(rows=_less(tile.rows, whole.rows.start))
            note.on(at)
            if plan.schedule == "fused":
                yield at, fused(q[:, :, at.rows], k, v, given, note, at)
            else:
                yield at, attended(q[:, :, at.rows], k, v, odd, given, note, at)

    z = joined(plan, done())
    if note.plan.schedule != plan.schedule:
        return None
    if isinstance(given.kept, Stream):
        given.kept.mark()
    own = whole._replace(rows=slice(0, len(rows)))
    steps, said = note.sent(own)
    return Piece(None if z is None else as_numpy(own.of(z, columns=False)), steps, note.odd, said)


def _less(rows: Slice, start: int) -> Slice:
    return slice(rows.start - start, rows.stop - start)
