"""Which steps of a run are kept, and as which arrays. Entry: `Recorder`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from attncli.core.bands import Slice
from attncli.core.tiles import Tile
from attncli.core.warnings import RunWarnings, select_rows
from attncli.derivation import pop_intermediates
from attncli.plan import Plan
from attncli.plan.hidden_keys import PlannedHiddenKeys
from attncli.types import BASE_STEPS, Array, Attention, NumpyArray, Step
from attncli.validation.fields import as_numpy, is_tensor

StepAllocator = Callable[[str, Sequence[int]], Tensor | None]  # (step, its lengths) → where to put it; None: in memory


class Recorder:
    """The steps of one run: those that the plan keeps, on the axes that the problem has.

    `record` is called for each step as it is computed: for whole steps, and, between `begin_tile` and `end_tiles`, for
    a tile's part of one. `make_attention` returns the result.
    """

    def __init__(
        self,
        plan: Plan,
        caller_memory: Set[int],
        drawn_parameters: Mapping[str, Array],
        allocate_step: StepAllocator | None = None,
        *,
        track_gradients: bool = False,
    ) -> None:
        """Begin a run.

        Args:
            plan: what is computed; replaced where it turns out that another schedule is needed.
            caller_memory: storage pointers of memory that no result may share.
            drawn_parameters: arrays that were drawn, for the result.
            allocate_step: provides the tensor for a step that is too large for memory.
            track_gradients: keep every step with its graph as well.
        """
        self.plan = plan
        self.caller_memory = caller_memory
        self.drawn_parameters = drawn_parameters
        self.allocate_step = allocate_step
        self.track_gradients = track_gradients
        self.dtype: torch.dtype = getattr(torch, plan.variant.dtype)
        self.steps: dict[str, Step] = {}
        self.assembled_steps: dict[str, Tensor] = {}  # steps that are put together from tiles
        self.allocated_steps: set[str] = set()  # those of them that `allocate_step` has given a place
        self.tracked_steps: dict[str, Tensor] = {}  # every step with all its axes and its graph
        self.current_tile: Tile | None = None  # None: whole steps are recorded
        self.warnings = RunWarnings()
        problem = plan.problem
        self.returns_tensors = any(is_tensor(x) for x in (problem.embeddings, problem.q, problem.k))

    def begin_tile(self, tile: Tile) -> None:
        """Record parts of steps from now on, those of a tile."""
        self.current_tile = tile if self.plan.tile_size else None

    def end_tiles(self) -> None:
        """Record whole steps from now on."""
        self.current_tile = None

    def record(self, name: str, values: Tensor | None, formula: str) -> Array:
        """Keep a step if the plan does, with the intermediates recorded since the last one; return its values unchanged.

        Args:
            values: on all axes of its kind, those that the problem lacks having length 1; None: there is no such step.
        """
        intermediates = pop_intermediates()
        if name not in self.plan.keep or values is None:
            return values
        if self.track_gradients:
            self.tracked_steps[name] = values
            if values.is_floating_point() and not values.requires_grad:
                values.requires_grad_()  # made without a gradient, as hardmax is, it has one of its own
        if self.current_tile is not None:
            self._store_tile(name, formula, *self.trim_axes(name, self.current_tile.join_bands(values)))
            return values
        axes, trimmed = self.trim_axes(name, values)
        lengths = self.plan.find_step_shape(name).lengths
        trimmed = trimmed if trimmed.shape == lengths else trimmed.expand(lengths)
        recorded = {key: x._replace(values=as_numpy(x.values)) for key, x in intermediates.items()}
        self.steps[name] = Step(name, formula, axes, self._to_result_array(trimmed), recorded)
        return values

    def trim_axes(self, name: str, values: Tensor) -> tuple[tuple[str, ...], Tensor]:
        """Return the axes that a step has on this problem, and its values on those alone."""
        axes, all_axes = self.plan.find_step_shape(name).axes, BASE_STEPS.get(name, BASE_STEPS["scores"])
        return axes, values[_trimming(axes, all_axes)]

    def _store_tile(self, name: str, formula: str, axes: tuple[str, ...], values: Tensor) -> None:
        """Put the current tile's part of a step where it belongs."""
        if name not in self.assembled_steps:
            lengths = self.plan.find_step_shape(name).lengths
            dtype = self.dtype if values.is_floating_point() else values.dtype
            self.assembled_steps[name] = self._allocate(name, lengths, dtype)
            self.steps[name] = Step(name, formula, axes, self.assembled_steps[name])
        self.assembled_steps[name][self._tile_slices(axes)] = values

    def _tile_slices(self, axes: Sequence[str]) -> tuple[Slice, ...]:
        """Return where the current tile lies in a step."""
        assert self.current_tile is not None
        slices = {"batch": self.current_tile.batch, "head": self.current_tile.heads, "query": self.current_tile.rows}
        return tuple(slices.get(axis, slice(None)) for axis in axes)

    def _allocate(self, name: str, lengths: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return the tensor for a step that tiles put together."""
        allocated = self.allocate_step(name, lengths) if self.allocate_step else None
        if allocated is None:
            return torch.empty(*lengths, dtype=dtype)
        self.allocated_steps.add(name)
        return allocated

    def _to_result_array(self, values: Tensor) -> Array:
        """Return an array of the kind that came in, in the run's dtype, which never shares the caller's memory."""
        if values.dtype is not self.dtype and values.is_floating_point():
            values = values.to(self.dtype)
        if values.untyped_storage().data_ptr() in self.caller_memory:
            values = values.clone()
        return values if self.returns_tensors else as_numpy(values)

    # ── tiles of other processes ─────────────────────────────────────────────────────────────────
    def export_tile(
        self, tile: Tile
    ) -> tuple[dict[str, tuple[str, tuple[str, ...], NumpyArray]], dict[str, NumpyArray]]:
        """Return a tile's parts of steps (name → formula, axes, values), and of the rows that warnings name."""
        self.begin_tile(tile)
        steps = {
            name: (step.formula, step.axes, as_numpy(self.assembled_steps[name][self._tile_slices(step.axes)]))
            for name, step in self.steps.items()
            if name in self.assembled_steps
        }
        rows = {code: as_numpy(select_rows(marked, tile)) for code, marked in self.warnings.rows.items()}
        return steps, rows

    def import_tile(
        self,
        tile: Tile,
        steps: Mapping[str, tuple[str, tuple[str, ...], NumpyArray]],
        warnings_seen: Iterable[str],
        warning_rows: Mapping[str, NumpyArray],
    ) -> None:
        """Record what `export_tile` returned in another process."""
        self.begin_tile(tile)
        for name, (formula, axes, values) in steps.items():
            self._store_tile(name, formula, axes, torch.from_numpy(values))
        self.warnings.codes.update(warnings_seen)
        self.warn({code: torch.from_numpy(rows) for code, rows in warning_rows.items()})

    def warn(self, unusual: Mapping[str, Tensor | None]) -> None:
        """Remember warnings by code, with the rows of the current tile that they name, (b, h, n), or None if they name none."""
        self.warnings.add(unusual, self.plan, self.current_tile)

    def make_attention(self) -> Attention:
        """Return the result, once every step has been recorded."""
        plan = self.plan
        assembled = {
            name: replace(self.steps[name], values=x if name in self.allocated_steps else self._to_result_array(x))
            for name, x in self.assembled_steps.items()
        }
        steps = self.steps | assembled
        drawn = self.drawn_parameters.items()
        return Attention(
            variant=plan.variant.describe(),
            tokens=plan.tokens,
            k_tokens=plan.k_tokens,
            steps=tuple(steps[name] for name in plan.steps if name in steps),
            warnings=tuple(self.warnings.messages(plan)),
            parameters={name: x if self.returns_tensors else as_numpy(x) for name, x in drawn},
            about=plan.problem.about,
            source=plan.problem.source,
            line=plan.problem.line,
            id=plan.problem.id,
            meta=plan.problem.meta,
            settings=plan.settings,
            layout=plan.problem.layout or "bhtd",
            dtype=plan.variant.dtype,
            summary=plan.summary,
            past_length=plan.size.past,
            hidden_keys=PlannedHiddenKeys(plan) if plan.is_masked else None,
        )


@cache
def _trimming(axes: tuple[str, ...], all_axes: tuple[str, ...]) -> tuple[slice[None] | int, ...]:
    """Return the index that takes from all axes of a step those that it has, which are in the same order."""
    present = {*axes, "new_key"} if "key" in axes else {*axes}  # without a past, new keys are the keys
    absent_count = max((i for i, axis in enumerate(all_axes, start=1) if axis not in present), default=0)
    return tuple(slice(None) if axis in present else 0 for axis in all_axes[:absent_count])
