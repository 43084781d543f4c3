"""What a plan brings to the algebra, as tensors of one dtype on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from attncli.core.recorder import Notes
from attncli.core.tiles import Slice, Stream, Tile
from attncli.derivation import Finer, explaining, finer, take
from attncli.errors import CannotError
from attncli.parts.projections import LEARNED
from attncli.plan import Plan
from attncli.plan.visibility import arrays, full_rank, visible
from attncli.registry import AnyPart
from attncli.types import Array, Grid

_PROJECTED = {parameter.name for parameter in LEARNED}


class Given:
    """The problem's arrays, and what is drawn, ready to be computed with. `given("q")` is (b, n, h·d)."""

    def __init__(self, plan: Plan, *, traced: bool = False, device: str | None = None) -> None:
        self.plan = plan
        self.traced = traced  # gradients will be taken of whatever came in
        self.problem = plan.problem
        self.borrowed: set[int] = set()  # where memory lies that the caller may still write to
        self.dtype: torch.dtype = getattr(torch, plan.variant.dtype)
        self.device = found(device or plan.variant.device)
        seed = plan.variant.seed
        self.stream = None if seed is None else torch.Generator().manual_seed(seed)  # one for all that is drawn
        self.parameters, self.drawn = self._parameters()
        held = self.problem.parameters
        self.learned = {name: self.tensor(x) for name, x in held.items() if name not in _PROJECTED}
        self.predicates: dict[str, Finer] = {}
        self.places = _shared(plan) or _Places()
        self.borrowed |= self.places.lent
        self.grid = self.places.grid or self._grid()
        self.kept = self._kept()

    def tensor(self, x: Array) -> Tensor:
        """An array of numbers → the run's dtype and device; a tensor keeps its graph."""
        tensor = self._lent(x).to(self.device, self.dtype)
        return tensor.detach().clone().requires_grad_() if self.traced else tensor

    def _lent(self, x: Array) -> Tensor:
        """An array as a tensor that may share its memory, which is remembered."""
        tensor = as_tensor(x)
        self.borrowed.add(tensor.untyped_storage().data_ptr())
        return tensor

    def positioned(self, note: Notes) -> tuple[Tensor, Tensor] | None:
        """What queries, and keys and values, are made of: (b, n, x) and (b, s, y), with a position that acts there."""
        p, part = self.problem, self.plan.variant.position
        if p.embeddings is None:
            return None
        x = self.tensor(p.embeddings)
        x = x if x.ndim == 3 else x[None]
        y = x
        if p.memory:
            y = self.tensor(p.memory["embeddings"])
            y = y if y.ndim == 3 else y[None]
        if part.traits.acts_on != "embeddings":
            return self._chosen(x), y
        x, q_pos = self._chosen(x), self.grid.q_pos[:, 0]  # (b, n, ·), (b, n, 1)
        k_pos = self.grid.k_pos[:, 0, 0, self.plan.size.past :, None]  # (b, s, 1)
        x = note("positioned_embeddings", part(x, q_pos), part.member.formula)
        return x, x if p.memory is None and self.plan.rows is None else part(y, k_pos)

    def __call__(self, letter: str, x: tuple[Tensor, Tensor] | None) -> Tensor | None:
        """q, k or v before it is split into heads, (b, t, h·d): projected, or as it was given."""
        if x is not None:
            return self._linear(x[letter != "q"], letter)
        direct = getattr(self.problem, letter)
        if direct is None:
            return None
        flat = self._side_by_side(self.tensor(direct))
        return self._chosen(flat) if letter == "q" else flat

    def _chosen(self, x: Tensor) -> Tensor:
        """(b, t, ·) → (b, n, ·): the queries that are computed"""
        return x if self.plan.rows is None else x[:, torch.from_numpy(self.plan.rows).to(x.device)]

    def _side_by_side(self, x: Tensor) -> Tensor:
        """However q, k, v were laid out → (b, t, h·d)"""
        if x.ndim == 2:  # (t, h·d)
            return x[None]
        if self.problem.layout == "htd":
            return x.transpose(0, 1).flatten(1)[None]
        if x.ndim == 3:  # (b, t, h·d)
            return x
        return (x if self.problem.layout == "bthd" else x.transpose(1, 2)).flatten(2)

    def _linear(self, x: Tensor, letter: str) -> Tensor:
        """x W + b, either of which may be absent: (b, t, ·) → (b, t, ·)"""
        w, b = self.parameters.get(f"w_{letter}"), self.parameters.get(f"b_{letter}")
        finer("x", x, "bni", given=True)
        x = x if w is None else x @ finer("W", w, "io", given=True)
        return x if b is None else x + finer("b", b, "o", given=True)

    def formula(self, letter: str) -> str:
        """How q, k, v or the output came to be, in words."""
        if letter != "o" and self.problem.embeddings is None:
            return "as given"
        of = "context" if letter == "o" else "memory" if self.problem.memory and letter != "q" else "x"
        w = f" W_{letter}" if f"w_{letter}" in self.parameters else ""
        return of + w + (f" + b_{letter}" if f"b_{letter}" in self.parameters else "")

    def norm_before(self, q: Tensor, k: Tensor, note: Notes) -> tuple[Tensor, Tensor]:
        """q and k brought to one length, unless that follows the position."""
        return self._normed(q, k, note, "before")

    def norm_after(self, q: Tensor, k: Tensor, note: Notes) -> tuple[Tensor, Tensor]:
        """The same, where it follows the position."""
        return self._normed(q, k, note, "after")

    def _normed(self, q: Tensor, k: Tensor, note: Notes, when: str) -> tuple[Tensor, Tensor]:
        part = self.plan.variant.qk_norm
        late, across = part.traits.is_after_position, part.traits.is_across_heads
        if part.is_none or (late is not None and late(part)) != (when == "after"):
            return q, k
        full, out = across is not None and across(part), []
        for name, x in (("q", q), ("k", k)):
            whole = x.transpose(1, 2).flatten(2) if full else x  # (b, t, h·d) or (b, h, t, d)
            whole = part(whole)
            x = whole.unflatten(-1, (x.shape[1], -1)).transpose(1, 2) if full else whole  # (b, h, t, d)
            if (gain := self.learned.get(f"{name}_norm")) is not None:  # (d,), (h, d) or (h·d,)
                gain = finer("gain", gain.reshape(-1, x.shape[-1]), "hd", given=True)  # (1 or h, d)
                x = finer("normed", x, "bhnd") * gain[:, None]
            gained = " × gain" if f"{name}_norm" in self.learned else ""
            out.append(note(f"normed_{name}", x, part.member.formula + gained))
        return out[0], out[1]

    def turn(self, q: Tensor, k: Tensor, note: Notes) -> tuple[Tensor, Tensor]:
        """q and the new k with a position that acts on them; what is in the past was turned when it was new."""
        part, at = self.plan.variant.position, self.grid
        if part.traits.acts_on != "qk":
            return q, k
        assert self.plan.q_pos is not None  # a position reads them
        length = int(max(self.plan.q_pos.max(), self.plan.k_pos.max())) + 1  # whichever queries are computed
        q = note("positioned_q", part(q, at.q_pos, length, self.learned), part.member.formula)
        k = part(k, at.k_pos[..., self.plan.size.past :].mT, length, self.learned)
        return q, note("positioned_k", k, part.member.formula)

    def on(self, tile: Tile) -> Grid:
        """The grid of one tile, with what is visible there, and what each of its heads has learned."""
        seen = self.places.seen or self._seen(tile)
        learned = {name: x[self._of_heads(name, x, tile)] for name, x in self.learned.items()}
        return replace(seen, parameters=learned) if learned else seen

    def _seen(self, tile: Tile) -> Grid:
        """The grid of one tile, with what is visible there."""
        cut: dict[str, Array] = {name: tile.of(x) for name, x in arrays(self.grid).items()}
        at = replace(self.grid, **cut)
        seen = visible(at, self.plan.mask)
        self.predicates = take()  # what each mask of the expression says
        whole = np.broadcast_shapes(seen.shape, (1, 1, at.q_idx.shape[2], at.k_idx.shape[3]))
        return replace(at, visible=seen.expand(whole))

    def _of_heads(self, name: str, x: Tensor, tile: Tile) -> tuple[Slice, ...]:
        """The heads of a tile, on the axis that an array declares for them."""
        names = ("position", "score", "sink", "head_mixing")
        axes = {p.name: p.axes for part in names for p in self.plan.variant[part].member.parameters}.get(name, ())
        return tuple(tile.heads if axis == "H" else slice(None) for axis in axes) if len(axes) == x.ndim else ()

    def seen_mixed(self, at: Grid) -> Tensor:
        """What each head may see once heads are mixed: (b|1, h'|1, n, m)"""
        part = self.plan.variant.head_mixing
        combine = part.traits.mix_visible
        return combine(at.visible, part) if combine else at.visible

    def sub_norm(self, z: Tensor | None) -> Tensor | None:
        """What head mixing does to each head's context."""
        part = self.plan.variant.head_mixing
        act = part.traits.transform_context
        return z if z is None or act is None else act(z, self.learned, part)

    def past(self, letter: str) -> Tensor | None:
        """(b, g, p, ·)"""
        past = self.problem.past
        return self.tensor(past[letter]) if past and letter in past else None

    def drop(self, w: Tensor, tile: Tile) -> Tensor:
        """Inverted dropout of (b, h, n, m), drawn on the CPU over the whole grid: one seed is one pattern."""
        part = self.plan.variant.dropout
        if self.kept is None or part.traits.drop is None:
            return w
        kept = finer("kept", self.kept.of(tile).to(w.device).expand(w.shape), given=True)  # (b, h, n, m)
        return part.traits.drop(w, kept, part)

    def _kept(self) -> Stream | _Held | None:
        """Which weights survive, tile by tile: drawn, or given."""
        part, mask = self.plan.variant.dropout, self.problem.dropout_mask
        if part.is_none:
            return None
        if mask is not None:
            kept = as_tensor(full_rank(mask))  # (b, h, n, m), 1 where an axis is absent
            return _Held(kept if self.plan.rows is None or kept.shape[2] == 1 else kept[:, :, self.plan.rows])
        generator = self._generator(part)
        assert generator is not None  # the plan has drawn a seed
        return Stream(lambda shape: part(shape, generator), generator, self.plan)

    def output(self, z: Tensor | None) -> Tensor | None:
        """(b, n, h·c) → (b, n, ·), where there is a W_o"""
        return self._linear(z, "o") if z is not None and "w_o" in self.parameters else None

    def _generator(self, part: AnyPart) -> torch.Generator | None:
        """The part's own stream where it has a seed of its own."""
        own = part.get("seed") if part.given("seed") else None
        return self.stream if own is None else torch.Generator().manual_seed(own)

    def _parameters(self) -> tuple[dict[str, Tensor], Mapping[str, Array]]:
        """(as x @ W wants them, those that were drawn, as the file lays them out)"""
        part, sizes = self.plan.variant.projection, self.plan.sizes()

        def turned(x: Array) -> Array:
            return x.T if sizes.out_in and x.ndim == 2 else x

        named = {p.name for p in part.member.parameters}
        held = {k: turned(x) for k, x in self.problem.parameters.items() if k in named}  # (d_in, d_out)
        chosen = part(sizes, held, self._generator(part))
        shown = (
            torch.float64 if self.dtype == torch.float64 else torch.float32
        )  # so that what is printed computes the same
        drawn = {k: turned(x).to(shown) for k, x in chosen.items()} if part.traits.is_drawn else {}
        return {k: self.tensor(x) for k, x in chosen.items()}, drawn

    def _grid(self) -> Grid:
        at = self.plan.grid()
        small = _small(self.plan)
        moved: dict[str, Array] = {
            name: self._lent(_narrow(x) if small else x).to(self.device)
            for name, x in arrays(at).items()
            if name != "bias"
        }
        return replace(at, **moved, bias=None if at.bias is None else self.tensor(at.bias))


@dataclass
class _Places:
    """Where the scores sit, as it was found for the first of many problems that are alike."""

    plan: Plan | None = None  # of the first, without its problem
    grid: Grid | None = None
    seen: Grid | None = None  # the same with what is visible, where one tile holds everything
    lent: frozenset[int] = frozenset()  # where that lies, which no result may share


_DECIDING = ("size", "shapes", "variant", "mask", "q_pos", "k_pos")  # what of a plan decides where its scores sit


def _shared(plan: Plan) -> _Places | None:
    """What is known of where this plan's scores sit. Nothing if it is unlike the first, or someone wants every step of it."""
    known = plan.alike.settled if plan.alike else None
    if plan.alike is None or known is None or explaining():
        return None
    if not all(getattr(plan, name) is getattr(known, name) for name in _DECIDING):  # changed since it was settled
        return None
    if plan.alike.places is None:
        first = Given(replace(known, problem=plan.problem, alike=None))
        seen = first.on(Tile())
        places = [x for at in (first.grid, seen) for x in arrays(at).values()]
        lent = frozenset(x.untyped_storage().data_ptr() for x in places)
        plan.alike.places = _Places(known, first.grid, seen, lent)
    found = plan.alike.places
    assert isinstance(found, _Places)
    return found


@dataclass(frozen=True)
class _Held:
    """A dropout mask that came with the problem."""

    kept: Tensor

    def of(self, tile: Tile) -> Tensor:
        return tile.of(self.kept)


def _small(plan: Plan) -> bool:
    """Whether no option that places are compared with is too large for half an integer."""
    options = [
        o for part in (*(plan.mask.parts() if plan.mask else ()), plan.variant.position) for _, o in part.options
    ]
    numbers = [n for o in options for n in (o if isinstance(o, tuple) else (o,)) if isinstance(n, int)]
    return all(abs(n) < 2**30 for n in numbers)


def _narrow(x: Array) -> Array:
    """Integers in half their width where differences of two still fit: places are compared cell by cell."""
    small = isinstance(x, np.ndarray) and x.dtype == np.int64 and (x.size == 0 or abs(x).max() < 2**30)
    return x.astype(np.int32) if small else x


def as_tensor(x: Array) -> Tensor:
    """An array, whatever its strides and flags → a tensor, sharing its memory where torch can."""
    if isinstance(x, np.ndarray) and not (x.flags.writeable and all(stride >= 0 for stride in x.strides)):
        x = x.copy()
    return torch.as_tensor(x)


def found(name: str) -> torch.device:
    """The device of that name.

    Raises:
        CannotError: it is not to be had on this machine.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        why = str(error).partition("\n")[0].partition(". ")[0][:160] or "torch gives no reason"
        raise CannotError("no-device", f"device {name} is not to be had here: {why}", help="--device cpu") from None
