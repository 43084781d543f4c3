"""Read how q, k and v were made: which columns of which projections, with which norm, rotation and factor.

No name of a projection is needed. A column of q is looked for among all columns that the projections before the call gave,
and what is found is verified on every token. So packed, interleaved and latent layouts, and grouped or repeated heads, are all
the same: a list of columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from attncli.capture.recorder import ModuleRecord
from attncli.capture.rotation import Rotation, find_rotation, paired_columns


@dataclass
class Columns:
    """Where the columns of an array (B, H, T, d) stand in the outputs of projections: flat indices (H, d)."""

    indices: torch.Tensor
    factor: float = 1.0
    offset: torch.Tensor | None = None  # (H, d), added afterwards


@dataclass
class Norm:
    """A norm of q or k in our parts."""

    kind: str  # rms, layer or l2
    eps: float
    scope: str  # head or full
    gain: torch.Tensor  # (d) or (H, d)


@dataclass
class Side:
    """How one of q, k and v was made, step by step."""

    columns: Columns
    norm: Norm | None = None
    rotation: Rotation | None = None
    is_normed_after: bool = False  # after the rotation


class ProjectionTable:
    """The outputs of projections side by side, each column for the tokens of one array."""

    def __init__(self, records: Sequence[ModuleRecord], batch: int, tokens: int) -> None:
        self.records: list[ModuleRecord] = []
        self.inputs: list[torch.Tensor] = []
        outputs = []
        for record in records:
            x, y = (tokens_first(a, batch, tokens) for a in (record.input, record.output))
            if x is not None and y is not None:
                self.records.append(record)
                self.inputs.append(x)
                outputs.append(y)
        self.outputs = torch.cat(outputs, -1) if outputs else None  # (B, T, D)
        widths = [y.shape[-1] for y in outputs]
        self.starts = [sum(widths[:i]) for i in range(len(widths))]
        self.owners = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths, dtype=torch.long))
        self._sums: torch.Tensor | None = None

    def sum_columns(self, factors: torch.Tensor) -> torch.Tensor:
        """Return a sum of each column (D) over the batch and the tokens, with a factor (B, T) for each; it is kept."""
        assert self.outputs is not None
        if self._sums is None:
            self._sums = torch.einsum("bt,btD->D", factors, self.outputs.double())
        return self._sums

    def has(self, columns: Columns, target: torch.Tensor) -> bool:
        """Whether columns may be those of an array (B, H, T, d): there are as many of them, and the table is wide enough."""
        return columns.indices.shape == target.shape[1::2] and int(columns.indices.max()) < len(self.owners)

    def gather(self, columns: Columns) -> torch.Tensor:
        """Return the array (B, H, T, d) that the columns make."""
        assert self.outputs is not None
        heads, d = columns.indices.shape
        first = int(columns.indices[0, 0])
        if torch.equal(columns.indices.reshape(-1), torch.arange(first, first + heads * d)):  # a run, as in most models
            x = self.outputs[..., first : first + heads * d].unflatten(-1, (heads, d)).movedim(2, 1)
        else:
            x = self.outputs[..., columns.indices].movedim(2, 1)
        x = x * columns.factor if columns.factor != 1 else x
        return x if columns.offset is None else x + columns.offset[:, None]


def tokens_first(x: torch.Tensor, batch: int, tokens: int) -> torch.Tensor | None:
    """Return (B, T, D) of an array that holds a row for each token, however they lie; None where it does not."""
    if x.dim() < 1 or x.numel() % max(batch * tokens, 1) or x.numel() == 0:
        return None
    width = x.shape[-1]
    if x.numel() != batch * tokens * width:
        return None
    if x.dim() == 3 and x.shape[:2] == (tokens, batch) and tokens != batch:
        return x.transpose(0, 1)
    return x.reshape(batch, tokens, width)


@dataclass
class SideReader:
    """Reads q, k or v of one call, and what it needs for that."""

    table: ProjectionTable
    norms: Sequence[ModuleRecord]
    positions: torch.Tensor  # (B or 1, T)
    buffers: Sequence[torch.Tensor]  # frequencies that the model holds
    factors: Sequence[float]  # that something may have been multiplied by
    known_columns: list[Columns]  # of layers before, which are tried first

    def read(self, target: torch.Tensor, *, has_position: bool) -> Side | None:
        """Read how an array (B, H, T, d) was made; None where it cannot be read."""
        if self.table.outputs is None:
            return None
        if (columns := self._find(target)) is not None:
            return Side(columns)
        if not has_position:
            return None
        return self._read_normed_last(target) or self._read_rotated_last(target)

    def _find(self, target: torch.Tensor) -> Columns | None:
        for columns in self.known_columns:
            if self.table.has(columns, target) and is_close(self.table.gather(columns), target):
                return replace(columns)
        found = find_columns(target, self.table, self.factors)
        if found is not None and found.offset is None:
            self.known_columns.append(replace(found))
        return found

    def _rotation(self, before: torch.Tensor, after: torch.Tensor) -> Rotation | None:
        return find_rotation(before, after, self.positions, self.buffers, self.factors, tolerance_of(after))

    def _find_rotated(self, target: torch.Tensor) -> tuple[Columns, Rotation] | None:
        for columns in propose_columns(target, self.table, self.factors):
            if (rotation := self._rotation(self.table.gather(columns), target)) is not None:
                return columns, rotation
        return None

    def _read_normed_last(self, target: torch.Tensor) -> Side | None:
        for x, y, scope, record in _norm_views(self.norms, target):
            if not torch.equal(y, target) or (norm := read_norm(x, y, scope, record)) is None:
                continue
            if (columns := self._find(x)) is not None:
                return Side(columns, norm)
            if (rotated := self._find_rotated(x)) is not None:
                return Side(rotated[0], norm, rotated[1], is_normed_after=True)
        return None

    def _read_rotated_last(self, target: torch.Tensor) -> Side | None:
        if (rotated := self._find_rotated(target)) is not None:
            return Side(rotated[0], None, rotated[1])
        for x, y, scope, record in _norm_views(self.norms, target):
            rotation = self._rotation(y, target)
            if rotation is None or (norm := read_norm(x, y, scope, record)) is None:
                continue
            if (columns := self._find(x)) is not None:
                return Side(columns, norm, rotation)
        return None


def tolerance_of(x: torch.Tensor) -> float:
    """Return how far numbers of a dtype may be apart that are the same but for rounding, relative to the largest."""
    return 1e-6 if x.dtype == torch.float32 else 1e-12


# ── columns ──────────────────────────────────────────────────────────────────────────────────────
def find_columns(target: torch.Tensor, table: ProjectionTable, factors: Sequence[float]) -> Columns | None:
    """Find columns that give an array on every token; None where there are none."""
    assert table.outputs is not None
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(target.shape[0], target.shape[2], generator=generator, dtype=torch.float64)
    wanted = torch.einsum("bt,bhtd->hd", r, target.double())
    given = table.sum_columns(r)
    for factor in factors:
        columns = Columns(_nearest(wanted / factor, given), factor)
        if is_close(table.gather(columns), target):
            return columns
    return _find_with_offset(target, table)


def _find_with_offset(target: torch.Tensor, table: ProjectionTable) -> Columns | None:
    """Find a whole projection to which something constant was added, or that was multiplied by some factor."""
    _, heads, tokens, d = target.shape
    for start, record in zip(table.starts, table.records, strict=True):
        if record.output.shape[-1] != heads * d or tokens < 3:
            continue
        columns = Columns(start + torch.arange(heads * d).reshape(heads, d))
        raw = table.gather(columns)
        offset = (target - raw).mean((0, 2))
        if is_close(raw + offset[:, None], target):
            return Columns(columns.indices, 1.0, offset)
        factor = float((raw * target).sum() / (raw * raw).sum())
        if factor and is_close(raw * factor, target):
            return Columns(columns.indices, factor)
    return None


def propose_columns(target: torch.Tensor, table: ProjectionTable, factors: Sequence[float]) -> Iterator[Columns]:
    """Propose columns whose first token is the target's: no rotation turns position 0."""
    assert table.outputs is not None
    _, heads, _, d = target.shape
    first, given = target[:, :, 0], table.outputs[:, 0]  # (B, H, d), (B, D)
    generator = torch.Generator().manual_seed(1)
    r = torch.randn(target.shape[0], generator=generator, dtype=torch.float64)
    wanted, sums = torch.einsum("b,bhd->hd", r, first.double()), r @ given.double()
    limit = 100 * tolerance_of(target)
    for factor in factors:
        scaled = wanted / factor
        runs = _contiguous(scaled, sums, limit)
        indices = runs if runs is not None else _nearest(scaled, sums)
        if bool(((sums[indices] - scaled).abs() <= limit * max(1.0, float(scaled.abs().max()))).all()):
            yield Columns(indices)
    for start, record in zip(table.starts, table.records, strict=True):
        if record.output.shape[-1] == heads * d:
            yield Columns(start + torch.arange(heads * d).reshape(heads, d))


def _contiguous(wanted: torch.Tensor, given: torch.Tensor, limit: float) -> torch.Tensor | None:
    """Return where each head's columns stand as a run; None where some head's do not."""
    d = wanted.shape[-1]
    if len(given) < d:
        return None
    windows = given.unfold(0, d, 1)  # (D − d + 1, d)
    size = max(1.0, float(wanted.abs().max()))
    starts = []
    for head in wanted:
        fits = ((windows[:, 0] - head[0]).abs() <= limit * size).nonzero().flatten()
        fits = fits[((windows[fits] - head).abs() <= limit * size).all(-1)]
        if not len(fits):
            return None
        starts.append(int(fits[-1]))
    return torch.tensor(starts)[:, None] + torch.arange(d)


def _nearest(wanted: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Return the index of the nearest given number for each wanted one."""
    ordered, order = given.sort()
    right = torch.searchsorted(ordered, wanted.contiguous()).clamp(max=len(given) - 1)
    left = (right - 1).clamp(min=0)
    is_left = (ordered[left] - wanted).abs() < (ordered[right] - wanted).abs()
    return order[torch.where(is_left, left, right)]


def is_close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two arrays are the same but for rounding."""
    return float((a - b).abs().max()) <= 10 * tolerance_of(b) * max(float(b.abs().max()), 1e-30)


# ── norms ────────────────────────────────────────────────────────────────────────────────────────
def _norm_views(
    norms: Sequence[ModuleRecord], target: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, str, ModuleRecord]]:
    """Yield what went into each norm, and what came out, as (B, H, T, d), with its scope."""
    batch, heads, tokens, d = target.shape
    for record in norms:
        if record.output.numel() != target.numel() or record.input.shape != record.output.shape:
            continue
        shape = record.output.shape
        pair = (record.input, record.output)
        if shape[-1] == d and d != heads * d:
            if shape[-3:] == (tokens, heads, d) and not (tokens == heads and record.output.is_contiguous() is False):
                x, y = (a.reshape(batch, tokens, heads, d).transpose(1, 2) for a in pair)
                yield x, y, "head", record
            if shape[-3:] == (heads, tokens, d):
                x, y = (a.reshape(batch, heads, tokens, d) for a in pair)
                yield x, y, "head", record
            elif shape[-3:] != (tokens, heads, d):
                x, y = (a.reshape(batch, tokens, heads, d).transpose(1, 2) for a in pair)
                yield x, y, "head", record
        elif shape[-1] == heads * d:
            x, y = (a.reshape(batch, tokens, heads, d).transpose(1, 2) for a in pair)
            yield x, y, "head" if heads == 1 else "full", record


def read_norm(x: torch.Tensor, y: torch.Tensor, scope: str, record: ModuleRecord) -> Norm | None:
    """Read which norm gives (B, H, T, d) y of x; None: none of ours does."""
    a, b = (v.double() for v in (x, y))
    axes = (1, 3) if scope == "full" else (3,)
    epsilons = [
        float(e)
        for name in ("variance_epsilon", "eps", "epsilon", "norm_eps")
        if isinstance(e := getattr(record.module, name, None), int | float)
    ]
    for eps in dict.fromkeys([*epsilons, 1e-6, 1e-5, torch.finfo(x.dtype).eps]):
        if not eps > 0:
            continue
        centred = a - a.mean(axes, keepdim=True)
        for kind, unit in (
            ("rms", a * torch.rsqrt(a.square().mean(axes, keepdim=True) + eps)),
            ("layer", centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + eps)),
            ("l2", a / a.square().sum(axes, keepdim=True).sqrt().clamp(min=eps)),
        ):
            gain = (unit * b).sum((0, 2)) / unit.square().sum((0, 2)).clamp(min=1e-300)  # (H, d)
            if not bool(((unit * gain[:, None] - b).abs() <= 20 * tolerance_of(y) * float(b.abs().max())).all()):
                continue
            if kind == "l2" and not bool(((gain - 1).abs() < 1e-5).all()):
                continue
            return Norm(kind, eps, scope, _exact_gain(gain, record, scope))
    return None


def _exact_gain(gain: torch.Tensor, record: ModuleRecord, scope: str) -> torch.Tensor:
    """Return a gain with the digits that the module has, where they are near: its weight, or 1 + its weight."""
    weight = getattr(record.module, "weight", None)
    candidates = [torch.ones(gain.shape[-1], dtype=torch.float64)]
    if isinstance(weight, torch.Tensor) and weight.numel() in (gain.numel(), gain.shape[-1]):
        w = weight.detach().double().reshape(-1, gain.shape[-1])
        candidates += [w, w + 1]
    for candidate in candidates:
        if bool(((gain - candidate).abs() < 1e-4 * (1 + candidate.abs())).all()):
            return candidate.expand_as(gain) if scope == "full" else candidate.reshape(-1, gain.shape[-1]).squeeze(0)
    return gain


def norm_choice(norm: Norm, is_after: bool) -> str:
    """Spell a norm as `--qk-norm` does."""
    options = [f"eps={norm.eps!r}"] if norm.kind != "l2" else []
    options += ["scope=full"] if norm.scope == "full" else []
    options += ["at=after"] if is_after else []
    return f"{norm.kind}:{','.join(options)}" if options else norm.kind


def paired_order(rotation: Rotation, d: int) -> torch.Tensor:
    """Return the order of d columns in which the two of each pair have changed places."""
    first, second = paired_columns(rotation.layout, rotation.columns, rotation.dims, d)
    order = torch.arange(d)
    order[first], order[second] = second, first
    return order
