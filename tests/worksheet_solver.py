"""A pupil: fills in a worksheet from what is printed on it, by the formulas that it prints.

It reads the page alone (the JSON of `attn explain … --blank`), and shares nothing with the program but its symbols. What a
line says is worked as it stands; where a result on the way is blank too, the section's formula is worked with NumPy.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from tests.helpers import softmax

_GAP = re.compile(r"⟨(\d+)⟩(?:____)?")
_BLANK = "____"
_NAMES: dict[str, Any] = {
    "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "abs": np.abs,
    "maximum": np.maximum, "array": np.array, "inf": math.inf, "nan": math.nan,
}  # fmt: skip
_SPELLINGS = [
    (r"(\d+) more: ", ""), ("e\\^\\(", "exp("), (r"√\(", "sqrt("), (r"\bmax\(", "maximum("), (r"\bln ([\d.]+)", r"log(\1)"),
    ("[·×]", "*"), ("−", "-"), ("²", "**2"), (r"\^", "**"), ("∞", "inf"), ("NaN", "nan"), (r"\|([^|]+)\|", r"abs(\1)"),
]  # fmt: skip


class Worksheet:
    """One page, and what is known of its gaps."""

    def __init__(self, record: Any) -> None:
        self.record = record
        self.known: dict[int, float] = {}
        self.head = ""
        self.given: dict[str, list[np.ndarray]] = {}  # by label: rows
        self.memory: dict[str, np.ndarray] = {}  # x of the keys, where they are of a memory
        self.vectors: dict[tuple[str, str, str], str] = {}  # (head, letter, label) → the last printed row of q, k or v
        self.scores: dict[tuple[str, str], str] = {}  # (head, key) → the last printed score

    # ── texts into numbers ──
    def value(self, text: str) -> np.ndarray | float | None:
        """What a text comes to; None while something in it is blank."""
        text = _GAP.sub(lambda m: f"({self.known[int(m[1])]!r})" if int(m[1]) in self.known else _BLANK, text).strip()
        if not text or _BLANK in text or "…" in text or not re.search(r"\d|∞|NaN", text):
            return None
        for pattern, spelling in _SPELLINGS:
            text = re.sub(pattern, spelling, text)
        text = re.sub(r"\[([^\]]*)\]", lambda m: f"array([{', '.join(m[1].split())}])", text)
        try:
            with np.errstate(all="ignore"):
                return eval(text, {"__builtins__": {}}, _NAMES)
        except (SyntaxError, NameError, TypeError):
            return None  # words

    def assign(self, text: str, value: Any) -> None:
        """Write numbers into the gaps that a text consists of."""
        vector = re.fullmatch(r"\s*\[([^\]]*)\]\s*", text)
        if value is None or (vector is None and not _GAP.fullmatch(text.strip())):
            return
        entries = vector[1].split() if vector else [text]
        numbers = np.atleast_1d(np.asarray(value, float))
        if "…" in entries:  # the middle was left out
            at = entries.index("…")
            entries.remove("…")
            numbers = np.concatenate([numbers[:at], numbers[len(numbers) - len(entries) + at :]])
        for entry, number in zip(entries, numbers, strict=True):
            match = _GAP.fullmatch(entry.strip())
            if match:
                self.known.setdefault(int(match[1]), float(number))

    # ── the page ──
    def solve(self) -> dict[int, float]:
        """Go over the page until nothing new is found; a sheet may need a number of a head that comes later."""
        count = -1
        while len(self.known) > count:
            count, self.head = len(self.known), "head 0"
            for section in self.record["sections"]:
                if section["heading"]:
                    self.head = section["title"]
                elif not section["idle"]:
                    self._work_section(section)
        return self.known

    def _work_section(self, section: Any) -> None:
        title, formula, lines = section["title"], section["formula"], section["lines"]
        for line in lines:
            self._work_line(line)
        by_title = {
            "Given": self._read_given,
            "positioned_embeddings": self._read_positioned,
            "normed_context": self._work_sub_norm,
        }
        if title in by_title:
            by_title[title](lines)
        elif title in ("q", "k", "v", "k and v"):
            self._work_projection(section)
        elif title.endswith(("_q", "_k")):
            self._work_norm(section)
        elif title == "scores":
            self._work_scores(formula, lines)
        elif title == "weights":
            self._work_weights(formula, lines)
        elif title in ("head_context", "context"):
            self._work_context(formula, lines)
        if title.endswith("scores"):
            self._read_scores(formula, lines)

    def _work_context(self, formula: str, lines: Any) -> None:
        """The sum of weight × value, or heads side by side; both stand on the last line."""
        terms = [self.value(line["text"].split(" = ")[0]) for line in lines[:-1]]
        if terms and all(term is not None for term in terms):
            whole = np.concatenate(terms) if formula == "heads side by side" else np.sum(terms, axis=0)
            self.assign(lines[-1]["text"], whole)

    def _read_positioned(self, lines: Any) -> None:
        for line in lines:
            if line["label"].startswith("x of "):
                self.given[line["label"]] = [self.value(line["text"])]

    def _work_line(self, line: Any) -> None:
        """Both sides of an equals sign are the same."""
        sides = line["text"].split(" = ")
        values = [self.value(side) for side in sides]
        found = next((value for value in values if value is not None), None)
        for side, value in zip(sides, values, strict=True):
            if value is None:
                self.assign(side, found)

    def _read_given(self, lines: Any) -> None:
        label = ""
        for line in lines:
            if line["remark"] == "memory":
                self.memory[line["label"].removeprefix("x of ")] = self.value(line["text"])
                continue
            if line["label"]:
                label = line["label"]
                self.given[label] = []
            self.given[label].append(self.value(line["text"]))

    # ── q, k and v ──
    def _work_projection(self, section: Any) -> None:
        """Rows by the formula `x W_k + b_k`, of this head's columns."""
        name = re.search(r"kv head \d+", section["remark"])
        head = name[0] if name else self.head
        for line in section["lines"]:
            if line["label"].startswith("x") or "[" in line["label"] or not line["text"].startswith("["):
                continue
            for letter in section["title"].split(" and "):
                x = self._vector_of(line["label"], letter, section["formula"])
                row = self._project(x, letter, section["formula"], head)
                columns = re.search(r"columns (\d+) to (\d+) of x", section["remark"])
                if row is not None and columns:
                    row = row[int(columns[1]) : int(columns[2]) + 1]
                if row is not None:
                    self.assign(line["text"], row)
                self.vectors[self.head, letter, line["label"]] = line["text"]

    def _vector_of(self, label: str, letter: str, formula: str) -> np.ndarray | None:
        if formula.startswith("memory"):
            return self.memory.get(label)
        if letter == "q":
            query = self.record["title"].partition("query ")[2].partition(" · ")[0]
            label = query.partition("“")[2].removesuffix("”") or query
            label = label if f"x of {label}" in self.given else query.replace("“", "").replace("”", "")
        rows = self.given.get(f"x of {label}")
        return rows[0] if rows else None

    def _project(self, x: Any, letter: str, formula: str, head: str) -> np.ndarray | None:
        if x is None:
            return None
        for name in re.findall(r"[Wb]_\w", formula):
            array = self.given.get(f"{name}, {head}", self.given.get(name))
            assert array is not None, (name, head)
            x = x @ np.array(array) if name.startswith("W") else x + array[0]
        return x

    def _work_norm(self, section: Any) -> None:
        """x / √(mean x² + eps), where the mean is blank; of one head, or over all heads' columns."""
        letter, eps, across, before, normed = section["title"][-1], None, False, None, None
        for line in section["lines"]:
            sides, label = line["text"].split(" = "), line["label"]
            if label == "mean x²":
                across = bool(line["remark"])
            elif label == "root":
                eps = float(re.search(r"\+ ([\d.e-]+)\)", line["text"])[1])
            elif label == "x / root":
                text = sides[0].rpartition(" / ")[0]
                before, normed, last = self.value(text), None, sides[-1]
                if before is not None and not across:
                    normed = before / math.sqrt(np.mean(before**2) + eps)
                    self.assign(last, normed)
            elif label == "× gain":
                if normed is not None:
                    self.assign(sides[-1], normed * self.value(sides[0].split(" × ")[1]))
            elif len(sides) == 1 and sides[0].startswith("["):
                if across:  # the row label says which token: its columns of every head
                    whole = [
                        self.value(text)
                        for (head, x, name), text in self.first_vectors.items()
                        if (x, name) == (letter, label)
                    ]
                    if before is not None and all(part is not None for part in whole):
                        normed = before / math.sqrt(np.mean(np.concatenate(whole) ** 2) + eps)
                        gain = next((n for n in section["lines"] if n["label"] == "× gain"), None)
                        self.assign(last, normed)
                        if gain is not None:
                            normed = normed * self._gain_of(section, label)
                        self.assign(sides[0], normed)
                self.vectors[self.head, letter, label] = sides[0]

    @property
    def first_vectors(self) -> dict[tuple[str, str, str], str]:
        """The rows of q and k as they were before norms: they are read from their own sections."""
        found = {}
        head = "head 0"
        for section in self.record["sections"]:
            if section["heading"]:
                head = section["title"]
            elif section["title"] in ("q", "k"):
                for line in section["lines"]:
                    if not line["label"].startswith("x") and line["text"].startswith("["):
                        found[head, section["title"], line["label"]] = line["text"]
        return found

    def _gain_of(self, section: Any, label: str) -> np.ndarray:
        """The gain on the line above the row of a label."""
        lines = section["lines"]
        at = next(i for i, line in enumerate(lines) if line["label"] == label and line["text"].startswith("["))
        return self.value(lines[at - 1]["text"].split(" = ")[0].split(" × ")[1])

    # ── scores ──
    def _row(self, letter: str, label: str) -> np.ndarray | None:
        text = self.vectors.get((self.head, letter, label))
        return None if text is None else self.value(text)

    def _work_scores(self, formula: str, lines: Any) -> None:
        """Scores whose vectors on the way are blank: features, and hidden layers."""
        q = self._row("q", "q")
        for line in lines:
            if ":" in line["label"] or " = " not in line["text"] or q is None:
                continue
            k = self._row("k", line["label"])
            if k is not None:
                self.assign(line["text"].split(" = ")[-1], self._score(formula, q, k))

    def _score(self, formula: str, q: np.ndarray, k: np.ndarray) -> float | None:
        learned = {name: np.array(rows) for name, rows in self.given.items() if name.startswith("score_")}
        if formula.startswith("φ(q)·φ(k)"):
            assert "phi=elu" in self.record["summary"]
            return float(np.where(q > 0, q + 1, np.exp(q)) @ np.where(k > 0, k + 1, np.exp(k)))
        if formula == "q W kᵀ":
            return float(q @ learned["score_w_q"] @ k)
        if "tanh" in formula:
            return float(np.tanh(q @ learned["score_w_q"] + k @ learned["score_w_k"]) @ learned["score_v"][0])
        return None

    def _read_scores(self, formula: str, lines: Any) -> None:
        """Remember each key's score; the mask's section names hidden keys alone, and the others stay."""
        for line in lines:
            if ":" in line["label"] or line["label"] in ("factor", "φ(q)", "q W", "q W_q"):
                continue
            if formula == "s where visible, else −∞":
                self.assign(line["text"], -math.inf)
                self.scores.pop((self.head, line["label"]), None)
            else:
                self.scores[self.head, line["label"]] = line["text"].split(" = ")[-1]

    # ── weights ──
    def _work_weights(self, formula: str, lines: Any) -> None:
        results = {}
        for line in lines:
            sides = line["text"].split(" = ")
            inner = re.match(r"e\^\((.+) − \S+\)$", sides[0])
            if inner:  # the score that stands in the exponential is that of this key
                if self.value(inner[1]) is None and (self.head, line["label"]) in self.scores:
                    self.assign(inner[1], self.value(self.scores[self.head, line["label"]]))
                self.scores[self.head, line["label"]] = inner[1]
            elif len(sides) > 1 and line["label"] not in ("sum", "check", "largest", "τ"):
                results[line["label"]] = sides[-1]
        scores = [self.value(self.scores.get((self.head, label), "")) for label in results]
        if not results or any(s is None for s in scores):
            return
        s = np.array(scores, float)
        if formula.startswith("e^(s − max s) / Σ e^(s − max s)"):
            weights = softmax(s)
        elif formula.startswith("s / Σ s"):
            weights = s / s.sum()
        elif formula.startswith("max(s/2 − τ, 0)²"):
            weights = _threshold(s / 2, 2)
        elif formula.startswith("max(s − τ, 0)"):
            weights = _threshold(s, 1)
        else:
            return
        for text, weight in zip(results.values(), weights, strict=True):
            self.assign(text, weight)

    def _work_sub_norm(self, lines: Any) -> None:
        """z / √(mean z² + 1e-5) × gain × (1 − λ_init)"""
        eps = next(float(re.search(r"\+ ([\d.e-]+)\)", line["text"])[1]) for line in lines if line["label"] == "root")
        left, right = lines[-1]["text"].split(" = ")
        z_text, gain, share = re.match(r"(\[.*?\]) / \S+ × (\[.*?\]) × (\S+)$", left).groups()
        z = self.value(z_text)
        if z is not None:
            self.assign(right, z / math.sqrt(np.mean(z**2) + eps) * self.value(gain) * self.value(share))


def _threshold(s: np.ndarray, power: int) -> np.ndarray:
    """max(s − τ, 0)^power with τ such that the sum is 1, by halving."""
    low, high = s.max() - 1, s.max()
    for _ in range(80):
        tau = (low + high) / 2
        low, high = (tau, high) if (np.maximum(s - tau, 0) ** power).sum() >= 1 else (low, tau)
    return np.maximum(s - low, 0) ** power
