"""What a plan brings to the algebra, as tensors of one dtype on one device. Entry: `Inputs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attncli.core.bands import Slice
from attncli.core.dropout import make_dropout_source
from attncli.core.statistics import find_empty_rows
from attncli.core.tiles import WHOLE_GRID, Tile
from attncli.derivation import is_recording
from attncli.errors import CannotError
from attncli.parts.projections import PROJECTION_PARAMETERS
from attncli.plan import Plan
from attncli.plan.visibility import compute_visibility, grid_arrays, to_4d
from attncli.registry import AnyPart
from attncli.types import Array, Grid

_PROJECTION_PARAMETERS = {parameter.name for parameter in PROJECTION_PARAMETERS}


class Inputs:
    """The arrays of a problem as tensors, what is drawn, and where the scores sit; `layers` computes with them."""

    def __init__(self, plan: Plan, *, track_gradients: bool = False, device: str | None = None) -> None:
        """Make the tensors of a plan.

        Args:
            track_gradients: gradients will be taken of whatever came in, so that every tensor is a leaf of its own.
            device: in place of the variant's.

        Raises:
            CannotError: the device is not available.
        """
        self.plan = plan
        self.track_gradients = track_gradients
        self.problem = plan.problem
        self.caller_memory: set[int] = set()  # storage pointers of memory that the caller may still write to
        self.dtype: torch.dtype = getattr(torch, plan.variant.dtype)
        self.device = require_device(device or plan.variant.device)
        seed = plan.variant.seed
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)  # one for all that is drawn
        self.projection_parameters, self.drawn_parameters = self._make_projection_parameters()
        self.part_parameters = {
            name: self.to_tensor(x) for name, x in self.problem.parameters.items() if name not in _PROJECTION_PARAMETERS
        }
        self.shared_grid = _find_shared_grid(plan) or _SharedGrid()
        self.caller_memory |= self.shared_grid.storage_pointers
        self.grid = self.shared_grid.grid or self._grid_as_tensors()
        dropout_mask = self.problem.dropout_mask
        self.dropout_source = make_dropout_source(
            plan,
            None if dropout_mask is None else as_tensor(to_4d(dropout_mask)),
            self._generator_of(plan.variant.dropout),
        )

    # ── arrays ───────────────────────────────────────────────────────────────────────────────────
    def to_tensor(self, x: Array) -> Tensor:
        """Return an array as a tensor of the run's dtype and device; a tensor keeps its graph."""
        tensor = self._share_memory(x).to(self.device, self.dtype)
        return tensor.detach().clone().requires_grad_() if self.track_gradients else tensor

    def _share_memory(self, x: Array) -> Tensor:
        """Return an array as a tensor that may share its memory, which is remembered as the caller's."""
        tensor = as_tensor(x)
        self.caller_memory.add(tensor.untyped_storage().data_ptr())
        return tensor

    @cached_property
    def embeddings(self) -> Tensor | None:
        """The embeddings of the tokens that attend, (b, t, x); None where q, k and v are given."""
        return None if self.problem.embeddings is None else _with_batch(self.to_tensor(self.problem.embeddings))

    @cached_property
    def memory_embeddings(self) -> Tensor | None:
        """The embeddings that are attended to, (b, s, y), where the problem has a memory."""
        memory = self.problem.memory
        return _with_batch(self.to_tensor(memory["embeddings"])) if memory else None

    def past(self, letter: Literal["k", "v"]) -> Tensor | None:
        """Return the keys or values of the cache, (b, g, p, ·), if there is one."""
        past = self.problem.past
        return self.to_tensor(past[letter]) if past and letter in past else None

    # ── what is drawn ────────────────────────────────────────────────────────────────────────────
    def _generator_of(self, part: AnyPart) -> torch.Generator | None:
        """Return a generator of the part's own where it has its own seed, else the one for all."""
        seed = part.option_value("seed") if part.is_set("seed") else None
        return self.generator if seed is None else torch.Generator().manual_seed(seed)

    def _make_projection_parameters(self) -> tuple[dict[str, Tensor], Mapping[str, Array]]:
        """Return the projection's arrays as x @ W takes them, and those that were drawn as the file lays them out."""
        projection, sizes = self.plan.variant.projection, self.plan.projection_sizes()

        def to_in_out(x: Array) -> Array:
            return x.T if sizes.out_in and x.ndim == 2 else x

        names = {parameter.name for parameter in projection.member.parameters}
        from_file = {
            name: to_in_out(x) for name, x in self.problem.parameters.items() if name in names
        }  # (d_in, d_out)
        arrays = projection(sizes, from_file, self._generator_of(projection))
        drawn = {}
        if projection.traits.is_drawn:  # shown in the dtype they are computed in, so that pasting them gives the same
            dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
            drawn = {name: to_in_out(x).to(dtype) for name, x in arrays.items()}
        return {name: self.to_tensor(x) for name, x in arrays.items()}, drawn

    # ── where the scores sit ─────────────────────────────────────────────────────────────────────
    def grid_of(self, tile: Tile) -> Grid:
        """Return the grid of one tile, with what is visible there and the parameters of its heads."""
        grid = self.shared_grid.visible_grid or self._visible_grid(tile)
        parameters = {name: x[self._head_slices(name, x, tile)] for name, x in self.part_parameters.items()}
        return replace(grid, parameters=parameters) if parameters else grid

    def _visible_grid(self, tile: Tile) -> Grid:
        """Return the grid of one tile, with what is visible there: (b or 1, h or 1, n, m)."""
        grid = self.grid
        if tile != WHOLE_GRID:
            selected: dict[str, Array] = {name: tile.select(x) for name, x in self._grid_arrays.items()}
            grid = replace(grid, **selected)
        visible = compute_visibility(grid, self.plan.mask) if self.plan.is_masked else self._every_key
        shape = np.broadcast_shapes(visible.shape, (1, 1, grid.q_idx.shape[2], grid.k_idx.shape[3]))
        return replace(grid, visible=visible.expand(shape))

    @cached_property
    def _grid_arrays(self) -> dict[str, Array]:
        """The arrays of the grid that tiles have a part of, by name."""
        return {name: x for name, x in grid_arrays(self.grid).items() if x.numel() > 1}

    @cached_property
    def _every_key(self) -> Tensor:
        """What is visible where nothing is hidden: (1, 1, 1, 1)."""
        return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device)

    def is_fully_visible(self, grid: Grid) -> bool:
        """Whether every query of a tile's grid is known to see every key; of an accelerator it is not asked, which takes long."""
        if not self.plan.is_masked or self.device.type != "cpu":
            return not self.plan.is_masked
        visible = grid.visible
        return bool(
            visible[..., 0].all() and visible[..., -1].all() and visible.all()
        )  # the first two are quick to say no

    def find_empty_rows(self, grid: Grid) -> Tensor | None:
        """Return which queries of a tile's grid see no key, (b, h, n); None where every query sees one."""
        shared = self.shared_grid
        return shared.empty_rows if shared.visible_grid else find_empty_rows(self.plan, grid.visible)

    def _head_slices(self, name: str, x: Tensor, tile: Tile) -> tuple[Slice, ...]:
        """Return the slices that select a tile's heads on the axis that a parameter declares for them."""
        variant = self.plan.variant
        parts: tuple[AnyPart, ...] = (variant.position, variant.score, variant.sink, variant.head_mixing)
        declared = {parameter.name: parameter.axes for part in parts for parameter in part.member.parameters}
        axes = declared.get(name, ())
        return tuple(tile.heads if axis == "H" else slice(None) for axis in axes) if len(axes) == x.ndim else ()

    def _grid_as_tensors(self) -> Grid:
        """Return the plan's grid as tensors on the device, its integers in 32 bits where that is enough."""
        grid = self.plan.make_grid()
        narrow = _options_fit_int32(self.plan)
        tensors: dict[str, Array] = {
            name: self._share_memory(_narrow_to_int32(x) if narrow else x).to(self.device)
            for name, x in grid_arrays(grid).items()
            if name != "bias"
        }
        return replace(grid, **tensors, bias=None if grid.bias is None else self.to_tensor(grid.bias))


def _with_batch(x: Tensor) -> Tensor:
    """(t, ·) or (b, t, ·) → (b, t, ·)"""
    return x if x.ndim == 3 else x[None]


@dataclass
class _SharedGrid:
    """Where the scores sit, found once for all problems of equal shapes and variant."""

    grid: Grid | None = None
    visible_grid: Grid | None = None  # the same with what is visible, where one tile holds everything
    empty_rows: Tensor | None = None  # which of its queries see no key, (b, h, n); None: none
    storage_pointers: frozenset[int] = frozenset()  # of their arrays, whose memory no result may share


def _find_shared_grid(plan: Plan) -> _SharedGrid | None:
    """Return the grid that plans like this one share, made by the first of them.

    None: it has changed since it was finished, or someone wants to see how the grid is made.
    """
    if plan.shared is None or not plan.is_as_shared or is_recording():
        return None
    if plan.shared.grid is None:
        inputs = Inputs(replace(plan, shared=None))
        visible_grid = inputs.grid_of(WHOLE_GRID)
        arrays = [x for grid in (inputs.grid, visible_grid) for x in grid_arrays(grid).values()]
        pointers = frozenset(x.untyped_storage().data_ptr() for x in arrays)
        empty_rows = find_empty_rows(plan, visible_grid.visible)
        plan.shared.grid = _SharedGrid(inputs.grid, visible_grid, empty_rows, pointers)
    shared_grid = plan.shared.grid
    assert isinstance(shared_grid, _SharedGrid)
    return shared_grid


def _options_fit_int32(plan: Plan) -> bool:
    """Whether every integer option that positions are compared with is small enough for 32 bits."""
    masks = plan.mask.iter_parts() if plan.mask else ()
    values = [value for part in (*masks, plan.variant.position) for value in part.option_values.values()]
    integers = [i for value in values for i in (value if isinstance(value, tuple) else (value,)) if isinstance(i, int)]
    return all(abs(i) < 2**30 for i in integers)


def _narrow_to_int32(x: Array) -> Array:
    """Return integers in 32 bits where differences of two still fit: positions are compared cell by cell."""
    fits = isinstance(x, np.ndarray) and x.dtype == np.int64 and (x.size == 0 or abs(x).max() < 2**30)
    return x.astype(np.int32) if fits else x


def as_tensor(x: Array) -> Tensor:
    """Return an array, whatever its strides and flags, as a tensor that shares its memory where torch can."""
    if isinstance(x, np.ndarray) and not (x.flags.writeable and all(stride >= 0 for stride in x.strides)):
        x = x.copy()
    return torch.as_tensor(x)


@cache
def require_device(name: str) -> torch.device:
    """Return the device of that name, once it has been found.

    Raises:
        CannotError: it is not available on this machine.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0][:160] or "torch gives no reason"
        message = f"there is no device {name} on this machine: {reason}"
        raise CannotError("no-device", message, help="--device cpu") from None
