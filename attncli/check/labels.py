"""Matching the labels of rows and columns with what a problem calls them: figures are judged under their own names.

`find_labelled_indices` is for a table, `find_result_indices` for a result. Labels that match nothing are refused.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from attncli.errors import InputError
from attncli.plan import Plan
from attncli.text import join_names, pluralize, printable, quote_name, shorten, split_final_digits, suggestion
from attncli.types import TOKEN_AXES, Labels, NumpyArray

_MAX_NUMBER_DIGITS = 15  # of a label that counts; no axis is longer
_MAX_SHOWN_NAMES = 8
AXIS_PLURALS = {"query": "queries", "batch": "batches"}  # of the others: with an s


def label_names(plan: Plan, axis: str) -> tuple[str, ...]:
    """Return what a problem calls the indices of an axis; nothing where they have no names, as dims and heads."""
    if axis not in ("query", "key", "new_key"):
        return ()
    names: Labels = plan.tokens if axis == "query" else plan.k_tokens
    if plan.size.batch is not None:
        if len(set(names)) > 1:
            return ()  # no table holds a batch, unless all of it is called the same
        names = names[0]
    return tuple(map(str, names[plan.size.past :] if axis == "new_key" else names))


def find_labelled_indices(
    labels: Sequence[str], names: Sequence[str], length: int, axis: str, noun: str, step: str
) -> NumpyArray:
    """Find the index of every row, or every column, of a table by its label.

    Args:
        labels: what the table calls its rows or columns, in order.
        names: what the problem calls the indices of the axis; empty where they have no names.
        length: of the axis.
        axis: its name, for messages and for labels such as `head 0`.
        noun: row or column.
        step: whose figures they are, for messages.

    Raises:
        InputError: a label is unknown, stands twice, or may be one of several.
    """
    if not any(label.strip() for label in labels):
        return np.arange(length)
    by_name = _find_by_name(labels, names)
    by_number = _find_by_number(labels, length, axis, is_numbered=not names)
    if by_name is None and by_number is None:
        if not names and len(labels) > length and _is_in_order(labels):  # heads side by side
            return np.arange(length)
        raise _unknown_label_error(labels, names, length, axis, noun, step)
    is_same_order = by_name is not None and by_name == list(range(len(names)))
    if by_name is not None and by_number is not None and by_name != by_number and not is_same_order:
        raise InputError(
            "ambiguous-label",
            f"the {noun}s of {step} are called {_join(labels)}, which are tokens as well as numbers of {AXIS_PLURALS.get(axis, f'{axis}s')}",
            help=f"put them in the order of the problem: {_join(names)}",
        )
    found = by_number if by_name is None else by_name
    return np.array(found)


def find_result_indices(
    labels: Labels,
    plan: Plan,
    axis: str,
    indices: NumpyArray,
    batch_indices: NumpyArray | None,
    step: str,
    *,
    is_selected: bool = False,
) -> NumpyArray:
    """Find the place of every token of a result among the indices that the result has of an axis: (n,) 0 … n−1.

    Where one side has numbers for tokens and the other has names, nothing is compared.

    Args:
        labels: the tokens of the result; for a batch, those of each item.
        plan: the problem's.
        axis: query or key.
        indices: which indices of the axis the result has.
        batch_indices: which items of a batch it has; None where the step has no batch.
        step: whose figures they are, for messages.
        is_selected: whether the result itself says which indices they are, by its `at`.

    Raises:
        InputError: the tokens are not the problem's, contradict the indices, or come in another order in each item.
    """
    unchanged = np.arange(len(indices))
    tokens: Labels = plan.tokens if axis == "query" else plan.k_tokens
    items = [tokens]
    if plan.size.batch is not None:
        items = [tokens[b] for b in (range(len(tokens)) if batch_indices is None else batch_indices)]
    own_items = labels if labels and isinstance(labels[0], tuple) else (labels,)
    numbers = [str(i) for i in indices]
    found: set[tuple[int, ...]] = set()
    if len(own_items) != len(items):
        message = f"the tokens of {step} are those of {pluralize(len(own_items), 'item')}, but there are {len(items)}"
        raise InputError("unknown-label", message, help="a batch has a list of tokens for each item")
    for own, item in zip(own_items, items, strict=True):
        here = [str(item[i]) for i in indices]
        if list(own) == numbers or (here == numbers and not all(map(_is_whole_number, own))):
            continue
        if len(own) != len(here):
            message = f"{step} has {pluralize(len(here), axis, AXIS_PLURALS.get(axis, ''))}, but {pluralize(len(own), 'token')}"
            raise InputError("unknown-label", message, help="a result holds a token for each of them")
        by_name = _find_by_name(own, here)
        if is_selected and by_name != list(range(len(here))) and set(own) <= set(map(str, item)):
            raise InputError(
                "two-sources",
                f'in the result, "at" says that the {AXIS_PLURALS.get(axis, f"{axis}s")} of {step} are {_join(here)}, '
                f"but {'tokens' if axis == 'query' else 'k_tokens'} says {_join(own)}",
                help="both are in the order of the figures: correct the one that is wrong",
            )
        if by_name is None:
            raise _unknown_label_error(own, here, len(here), axis, axis, step)
        found.add(tuple(by_name))
    if len(found) > 1:
        message = f"the {AXIS_PLURALS.get(axis, f'{axis}s')} of {step} are in another order in one item of the batch than in another"
        hint = "put the tokens of every item, with their figures, in the order of the problem"
        raise InputError("ambiguous-label", message, help=hint)
    return np.array(found.pop()) if found else unchanged


def check_cell_tokens(
    cell_tokens: Mapping[str, Sequence[str]], plan: Plan, axes: Sequence[str], cells: NumpyArray, step: str
) -> None:
    """Check that the tokens of tidy rows are those of the queries and keys that their indices name.

    A token that is left out, and one that is a number on either side, is not compared.

    Args:
        cell_tokens: a token for each row, by column.
        plan: the problem's.
        axes: those of the step.
        cells: the indices of each row: (row, axis).
        step: whose figures they are, for messages.

    Raises:
        InputError: a token is another one than that of its index.
    """
    batch = cells[:, axes.index("batch")].tolist() if plan.size.batch is not None and "batch" in axes else None
    if batch is None and plan.size.batch is not None:
        return  # such as a mask that every item shares
    for column, tokens in cell_tokens.items():
        axis = next((axis for axis in TOKEN_AXES[column] if axis in axes), None)
        if axis is None:
            continue
        names: Labels = plan.tokens if axis == "query" else plan.k_tokens
        first = plan.size.past if axis == "new_key" else 0
        for i, (token, index) in enumerate(zip(tokens, cells[:, axes.index(axis)].tolist(), strict=True)):
            item = names if batch is None else names[batch[i]]
            known = str(item[index + first]).strip()
            if token and token != known and known != str(index) and token != str(index):
                message = f"a figure of {step} is of {axis} {index}, {_quote_label(known)}, but its {column} is {_quote_label(token)}"
                raise InputError("unknown-label", message, help=f"correct both, or leave {column} out")


def _find_by_name(labels: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Find labels among names: all of them in order, or each once; spaces around them count only where they tell names apart."""
    for own, known in ((list(labels), list(names)), ([x.strip() for x in labels], [x.strip() for x in names])):
        if own == known:
            return list(range(len(known)))
        index_of, count_of = {name: i for i, name in enumerate(known)}, Counter(known)
        if len(set(own)) == len(own) and all(count_of[label] == 1 for label in own):
            return [index_of[label] for label in own]
        if set(own) <= set(known):  # some are repeated: the same order might have been meant, or another
            return None
    return None


def _find_by_number(labels: Sequence[str], length: int, axis: str, *, is_numbered: bool) -> list[int] | None:
    """Find labels that count: all from 0 or from 1, or some with the name that attn writes (d2, head 1), from 0."""
    parts = [split_final_digits(label.strip()) for label in labels]
    stems = {stem for stem, _ in parts}
    if len(stems) > 1 or not all(0 < len(digits) <= _MAX_NUMBER_DIGITS for _, digits in parts):
        return None
    stem, numbers = next(iter(stems)), [int(digits) for _, digits in parts]
    if stem and not is_numbered and stem.strip().lower() != axis:
        return None
    if len(set(numbers)) < len(numbers):
        return None
    if length == len(numbers) and _numbers_from_0_or_1(tuple(map(str, numbers))):
        return [number - min(numbers) for number in numbers]
    is_written_by_attn = stem in ("d", f"{axis} ")
    return numbers if is_written_by_attn and max(numbers) < length else None


def _numbers_from_0_or_1(labels: Sequence[str]) -> bool:
    """Tell whether labels are all the numbers from 0 or from 1 on, in any order."""
    if not all(_is_whole_number(label.strip()) and len(label.strip()) <= _MAX_NUMBER_DIGITS for label in labels):
        return False
    numbers = sorted(int(label) for label in labels)
    return numbers in (list(range(first, first + len(numbers))) for first in (0, 1))


def _is_whole_number(label: str) -> bool:
    """Tell whether a label is a whole number in digits, as tokens without names are called."""
    return label.isascii() and label.isdecimal()


def _is_in_order(labels: Sequence[str]) -> bool:
    """Tell whether labels count upwards, by all numbers in them: h0 d0, h0 d1, h1 d0."""
    stems = {re.sub(r"[0-9]+", "", label) for label in labels}
    numbers = [
        [int(digits) for digits in re.findall(r"[0-9]+", label) if len(digits) <= _MAX_NUMBER_DIGITS]
        for label in labels
    ]
    return len(stems) == 1 and all(a < b for a, b in itertools.pairwise(numbers))


def _unknown_label_error(
    labels: Sequence[str], names: Sequence[str], length: int, axis: str, noun: str, step: str
) -> InputError:
    """Make the error of labels that do not say which row or column each is."""
    if noun == "column" and len(labels) > 1 and not _is_whole_number(labels[0]) and _numbers_from_0_or_1(labels[1:]):
        return InputError(
            "unknown-label",
            f"the header calls the first column of {step} {_quote_label(labels[0])}, and numbers the others",
            help="if the first column names the rows, call it token; if it holds figures, leave the header out",
        )
    if not names:
        prefix = "d" if axis == "dim" else f"{axis} "
        return InputError(
            "unknown-label",
            f"the {noun}s of {step} are called {_join(labels)}, which does not say which {axis} each is",
            help=f"call them {prefix}0 … {prefix}{length - 1}, or leave their names out",
        )
    known = {name.strip() for name in names}
    unknown = next((label for label in labels if label.strip() not in known), None)
    if unknown is not None:
        hint = suggestion(unknown.strip(), known) if len(known) <= 1000 else f"the tokens are {_join(names)}"
        return InputError(
            "unknown-label",
            f"a {noun} of {step} is called {_quote_label(unknown)}, but no {axis} has that name",
            help=hint,
        )
    count_of_name, count_of_label = (Counter(text.strip() for text in texts) for texts in (names, labels))
    twice = next((label for label, count in count_of_label.items() if count > count_of_name[label]), None)
    if twice is not None and count_of_name[twice] == 1:
        return InputError(
            "two-sources", f"the {noun} {_quote_label(twice)} of {step} occurs twice", help="remove one of them"
        )
    return InputError(
        "ambiguous-label",
        f"the {noun}s of {step} are called {_join(labels)}, but several tokens have the same name",
        help=f"put them in the order of the problem: {_join(names)}",
    )


def _quote_label(label: str) -> str:
    return quote_name(label.strip())


def _join(labels: Sequence[str]) -> str:
    return shorten(join_names((printable(shorten(label.strip(), 24)) for label in labels), max_names=_MAX_SHOWN_NAMES))
