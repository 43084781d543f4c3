"""What a plan brings to the algebra, as tensors of one dtype on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from attncli.core.recorder import Recorder
from attncli.core.tiles import DropoutStream, Slice, Tile
from attncli.derivation import Intermediate, is_recording, pop_intermediates, record_intermediate
from attncli.errors import CannotError
from attncli.parts.projections import PROJECTION_PARAMETERS
from attncli.plan import Plan
from attncli.plan.visibility import compute_visibility, grid_arrays, to_4d
from attncli.registry import AnyPart
from attncli.types import Array, Grid

_PROJECTION_PARAMETERS = {parameter.name for parameter in PROJECTION_PARAMETERS}


class Inputs:
    """The problem's arrays, and what is drawn, ready to be computed with. `given("q")` is (b, n, h·d)."""

    def __init__(self, plan: Plan, *, track_gradients: bool = False, device: str | None = None) -> None:
        self.plan = plan
        self.track_gradients = track_gradients  # gradients will be taken of whatever came in
        self.problem = plan.problem
        self.caller_memory: set[int] = set()  # where memory lies that the caller may still write to
        self.dtype: torch.dtype = getattr(torch, plan.variant.dtype)
        self.device = require_device(device or plan.variant.device)
        seed = plan.variant.seed
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)  # one for all that is drawn
        self.projection_parameters, self.drawn_parameters = self._make_projection_parameters()
        held = self.problem.parameters
        self.part_parameters = {
            name: self.to_tensor(x) for name, x in held.items() if name not in _PROJECTION_PARAMETERS
        }
        self.mask_intermediates: dict[str, Intermediate] = {}
        self.shared_grid = _find_shared_grid(plan) or _SharedGrid()
        self.caller_memory |= self.shared_grid.storage_pointers
        self.grid = self.shared_grid.grid or self._grid_as_tensors()
        self.dropout_source = self._make_dropout_source()

    def to_tensor(self, x: Array) -> Tensor:
        """An array of numbers → the run's dtype and device; a tensor keeps its graph."""
        tensor = self._share_memory(x).to(self.device, self.dtype)
        return tensor.detach().clone().requires_grad_() if self.track_gradients else tensor

    def _share_memory(self, x: Array) -> Tensor:
        """An array as a tensor that may share its memory, which is remembered."""
        tensor = as_tensor(x)
        self.caller_memory.add(tensor.untyped_storage().data_ptr())
        return tensor

    def projection_inputs(self, recorder: Recorder) -> tuple[Tensor, Tensor] | None:
        """What queries, and keys and values, are made of: (b, n, x) and (b, s, y), with a position that acts there."""
        p, part = self.problem, self.plan.variant.position
        if p.embeddings is None:
            return None
        x = self.to_tensor(p.embeddings)
        x = x if x.ndim == 3 else x[None]
        y = x
        if p.memory:
            y = self.to_tensor(p.memory["embeddings"])
            y = y if y.ndim == 3 else y[None]
        if part.traits.acts_on != "embeddings":
            return self._select_queries(x), y
        x, q_pos = self._select_queries(x), self.grid.q_pos[:, 0]  # (b, n, ·), (b, n, 1)
        k_pos = self.grid.k_pos[:, 0, 0, self.plan.size.past :, None]  # (b, s, 1)
        x = recorder("positioned_embeddings", part(x, q_pos), part.member.formula)
        return x, x if p.memory is None and self.plan.computed_queries is None else part(y, k_pos)

    def __call__(self, letter: str, x: tuple[Tensor, Tensor] | None) -> Tensor | None:
        """q, k or v before it is split into heads, (b, t, h·d): projected, or as it was given."""
        if x is not None:
            return self._apply_linear(x[letter != "q"], letter)
        direct = getattr(self.problem, letter)
        if direct is None:
            return None
        flat = self._flatten_heads(self.to_tensor(direct))
        return self._select_queries(flat) if letter == "q" else flat

    def _select_queries(self, x: Tensor) -> Tensor:
        """(b, t, ·) → (b, n, ·): the queries that are computed"""
        return (
            x if self.plan.computed_queries is None else x[:, torch.from_numpy(self.plan.computed_queries).to(x.device)]
        )

    def _flatten_heads(self, x: Tensor) -> Tensor:
        """However q, k, v were laid out → (b, t, h·d)"""
        if x.ndim == 2:  # (t, h·d)
            return x[None]
        if self.problem.layout == "htd":
            return x.transpose(0, 1).flatten(1)[None]
        if x.ndim == 3:  # (b, t, h·d)
            return x
        return (x if self.problem.layout == "bthd" else x.transpose(1, 2)).flatten(2)

    def _apply_linear(self, x: Tensor, letter: str) -> Tensor:
        """x W + b, either of which may be absent: (b, t, ·) → (b, t, ·)"""
        w, b = self.projection_parameters.get(f"w_{letter}"), self.projection_parameters.get(f"b_{letter}")
        record_intermediate("x", x, "bni", is_input=True)
        x = x if w is None else x @ record_intermediate("W", w, "io", is_input=True)
        return x if b is None else x + record_intermediate("b", b, "o", is_input=True)

    def projection_formula(self, letter: str) -> str:
        """How q, k, v or the output came to be, in words."""
        if letter != "o" and self.problem.embeddings is None:
            return "as given"
        of = "context" if letter == "o" else "memory" if self.problem.memory and letter != "q" else "x"
        w = f" W_{letter}" if f"w_{letter}" in self.projection_parameters else ""
        return of + w + (f" + b_{letter}" if f"b_{letter}" in self.projection_parameters else "")

    def normalize_qk_before_position(self, q: Tensor, k: Tensor, recorder: Recorder) -> tuple[Tensor, Tensor]:
        """q and k brought to one length, unless that follows the position."""
        return self._normalize_qk(q, k, recorder, "before")

    def normalize_qk_after_position(self, q: Tensor, k: Tensor, recorder: Recorder) -> tuple[Tensor, Tensor]:
        """The same, where it follows the position."""
        return self._normalize_qk(q, k, recorder, "after")

    def _normalize_qk(self, q: Tensor, k: Tensor, recorder: Recorder, when: str) -> tuple[Tensor, Tensor]:
        part = self.plan.variant.qk_norm
        late, across = part.traits.is_after_position, part.traits.is_across_heads
        if part.is_none or (late is not None and late(part)) != (when == "after"):
            return q, k
        full, out = across is not None and across(part), []
        for name, x in (("q", q), ("k", k)):
            whole = x.transpose(1, 2).flatten(2) if full else x  # (b, t, h·d) or (b, h, t, d)
            whole = part(whole)
            x = whole.unflatten(-1, (x.shape[1], -1)).transpose(1, 2) if full else whole  # (b, h, t, d)
            if (gain := self.part_parameters.get(f"{name}_norm")) is not None:  # (d,), (h, d) or (h·d,)
                gain = record_intermediate("gain", gain.reshape(-1, x.shape[-1]), "hd", is_input=True)  # (1 or h, d)
                x = record_intermediate("normed", x, "bhnd") * gain[:, None]
            gained = " × gain" if f"{name}_norm" in self.part_parameters else ""
            out.append(recorder(f"normed_{name}", x, part.member.formula + gained))
        return out[0], out[1]

    def rotate(self, q: Tensor, k: Tensor, recorder: Recorder) -> tuple[Tensor, Tensor]:
        """q and the new k with a position that acts on them; what is in the past was turned when it was new."""
        part, at = self.plan.variant.position, self.grid
        if part.traits.acts_on != "qk":
            return q, k
        assert self.plan.q_pos is not None  # a position reads them
        length = int(max(self.plan.q_pos.max(), self.plan.k_pos.max())) + 1  # whichever queries are computed
        q = recorder("positioned_q", part(q, at.q_pos, length, self.part_parameters), part.member.formula)
        k = part(k, at.k_pos[..., self.plan.size.past :].mT, length, self.part_parameters)
        return q, recorder("positioned_k", k, part.member.formula)

    def grid_of(self, tile: Tile) -> Grid:
        """The grid of one tile, with what is visible there, and what each of its heads has learned."""
        seen = self.shared_grid.visible_grid or self._visible_grid(tile)
        learned = {name: x[self._head_slices(name, x, tile)] for name, x in self.part_parameters.items()}
        return replace(seen, parameters=learned) if learned else seen

    def _visible_grid(self, tile: Tile) -> Grid:
        """The grid of one tile, with what is visible there."""
        cut: dict[str, Array] = {name: tile.select(x) for name, x in grid_arrays(self.grid).items()}
        at = replace(self.grid, **cut)
        seen = compute_visibility(at, self.plan.mask)
        self.mask_intermediates = pop_intermediates()  # what each mask of the expression says
        whole = np.broadcast_shapes(seen.shape, (1, 1, at.q_idx.shape[2], at.k_idx.shape[3]))
        return replace(at, visible=seen.expand(whole))

    def _head_slices(self, name: str, x: Tensor, tile: Tile) -> tuple[Slice, ...]:
        """The heads of a tile, on the axis that an array declares for them."""
        names = ("position", "score", "sink", "head_mixing")
        axes = {p.name: p.axes for part in names for p in self.plan.variant[part].member.parameters}.get(name, ())
        return tuple(tile.heads if axis == "H" else slice(None) for axis in axes) if len(axes) == x.ndim else ()

    def visible_after_mixing(self, grid: Grid) -> Tensor:
        """What each head may see once heads are mixed: (b|1, h'|1, n, m)"""
        part = self.plan.variant.head_mixing
        combine = part.traits.mix_visible
        return combine(grid.visible, part) if combine else grid.visible

    def sub_norm(self, z: Tensor | None) -> Tensor | None:
        """What head mixing does to each head's context."""
        part = self.plan.variant.head_mixing
        act = part.traits.transform_context
        return z if z is None or act is None else act(z, self.part_parameters, part)

    def past_tensor(self, letter: str) -> Tensor | None:
        """(b, g, p, ·)"""
        past = self.problem.past
        return self.to_tensor(past[letter]) if past and letter in past else None

    def apply_dropout(self, w: Tensor, tile: Tile) -> Tensor:
        """Inverted dropout of (b, h, n, m), drawn on the CPU over the whole grid: one seed is one pattern."""
        part = self.plan.variant.dropout
        if self.dropout_source is None or part.traits.drop is None:
            return w
        kept = record_intermediate(
            "kept", self.dropout_source.tile_mask(tile).to(w.device).expand(w.shape), is_input=True
        )  # (b, h, n, m)
        return part.traits.drop(w, kept, part)

    def _make_dropout_source(self) -> DropoutStream | _GivenDropoutMask | None:
        """Which weights survive, tile by tile: drawn, or given."""
        part, mask = self.plan.variant.dropout, self.problem.dropout_mask
        if part.is_none:
            return None
        if mask is not None:
            kept = as_tensor(to_4d(mask))  # (b, h, n, m), 1 where an axis is absent
            return _GivenDropoutMask(
                kept
                if self.plan.computed_queries is None or kept.shape[2] == 1
                else kept[:, :, self.plan.computed_queries]
            )
        generator = self._generator_of(part)
        assert generator is not None  # the plan has drawn a seed
        return DropoutStream(lambda shape: part(shape, generator), generator, self.plan)

    def output_projection(self, z: Tensor | None) -> Tensor | None:
        """(b, n, h·c) → (b, n, ·), where there is a W_o"""
        return self._apply_linear(z, "o") if z is not None and "w_o" in self.projection_parameters else None

    def _generator_of(self, part: AnyPart) -> torch.Generator | None:
        """The part's own stream where it has a seed of its own."""
        own = part.option_value("seed") if part.is_set("seed") else None
        return self.generator if own is None else torch.Generator().manual_seed(own)

    def _make_projection_parameters(self) -> tuple[dict[str, Tensor], Mapping[str, Array]]:
        """(as x @ W wants them, those that were drawn, as the file lays them out)"""
        part, sizes = self.plan.variant.projection, self.plan.projection_sizes()

        def to_in_out(x: Array) -> Array:
            return x.T if sizes.out_in and x.ndim == 2 else x

        named = {p.name for p in part.member.parameters}
        held = {k: to_in_out(x) for k, x in self.problem.parameters.items() if k in named}  # (d_in, d_out)
        chosen = part(sizes, held, self._generator_of(part))
        shown = (
            torch.float64 if self.dtype == torch.float64 else torch.float32
        )  # so that what is printed computes the same
        drawn = {k: to_in_out(x).to(shown) for k, x in chosen.items()} if part.traits.is_drawn else {}
        return {k: self.to_tensor(x) for k, x in chosen.items()}, drawn

    def _grid_as_tensors(self) -> Grid:
        at = self.plan.make_grid()
        small = _options_fit_int32(self.plan)
        moved: dict[str, Array] = {
            name: self._share_memory(_narrow_to_int32(x) if small else x).to(self.device)
            for name, x in grid_arrays(at).items()
            if name != "bias"
        }
        return replace(at, **moved, bias=None if at.bias is None else self.to_tensor(at.bias))


@dataclass
class _SharedGrid:
    """Where the scores sit, as it was found for the first of many problems that are alike."""

    plan: Plan | None = None  # of the first, without its problem
    grid: Grid | None = None
    visible_grid: Grid | None = None  # the same with what is visible, where one tile holds everything
    storage_pointers: frozenset[int] = frozenset()  # where that lies, which no result may share


_PLAN_FIELDS_OF_GRID = (
    "size",
    "shapes",
    "variant",
    "mask",
    "q_pos",
    "k_pos",
)  # what of a plan decides where its scores sit


def _find_shared_grid(plan: Plan) -> _SharedGrid | None:
    """What is known of where this plan's scores sit. Nothing if it is unlike the first, or someone wants every step of it."""
    known = plan.shared.finished_plan if plan.shared else None
    if plan.shared is None or known is None or is_recording():
        return None
    if not all(
        getattr(plan, name) is getattr(known, name) for name in _PLAN_FIELDS_OF_GRID
    ):  # changed since it was settled
        return None
    if plan.shared.grid is None:
        first = Inputs(replace(known, problem=plan.problem, shared=None))
        seen = first.grid_of(Tile())
        places = [x for at in (first.grid, seen) for x in grid_arrays(at).values()]
        lent = frozenset(x.untyped_storage().data_ptr() for x in places)
        plan.shared.grid = _SharedGrid(known, first.grid, seen, lent)
    found = plan.shared.grid
    assert isinstance(found, _SharedGrid)
    return found


@dataclass(frozen=True)
class _GivenDropoutMask:
    """A dropout mask that came with the problem."""

    kept: Tensor

    def tile_mask(self, tile: Tile) -> Tensor:
        return tile.select(self.kept)


def _options_fit_int32(plan: Plan) -> bool:
    """Whether no option that places are compared with is too large for half an integer."""
    options = [
        o
        for part in (*(plan.mask.iter_parts() if plan.mask else ()), plan.variant.position)
        for _, o in part.option_values
    ]
    numbers = [n for o in options for n in (o if isinstance(o, tuple) else (o,)) if isinstance(n, int)]
    return all(abs(n) < 2**30 for n in numbers)


def _narrow_to_int32(x: Array) -> Array:
    """Integers in half their width where differences of two still fit: places are compared cell by cell."""
    small = isinstance(x, np.ndarray) and x.dtype == np.int64 and (x.size == 0 or abs(x).max() < 2**30)
    return x.astype(np.int32) if small else x


def as_tensor(x: Array) -> Tensor:
    """An array, whatever its strides and flags → a tensor, sharing its memory where torch can."""
    if isinstance(x, np.ndarray) and not (x.flags.writeable and all(stride >= 0 for stride in x.strides)):
        x = x.copy()
    return torch.as_tensor(x)


def require_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        CannotError: it is not to be had on this machine.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        why = str(error).partition("\n")[0].partition(". ")[0][:160] or "torch gives no reason"
        raise CannotError("no-device", f"device {name} is not to be had here: {why}", help="--device cpu") from None
