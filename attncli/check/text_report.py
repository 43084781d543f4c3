"""What every report of `attncli.check` and `attncli.judge_tolerance` does with its text: `TextReport`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Self

from attncli.api.keywords import optional_word

if TYPE_CHECKING:
    from attncli.output_formats import RenderOptions


class TextReport(ABC):
    """A report that shows itself: as text, at a prompt, in a notebook, as the message of a failed assertion."""

    @abstractmethod
    def _views(self) -> Mapping[str, Callable[[Self, RenderOptions], str]]:
        """Return a function for each format: the report → text."""

    def to_text(self, format: Literal["table", "plain", "markdown"] = "table") -> str:
        """Return the report as text: what `attn check` prints.

        Raises:
            OptionError: there is no such format.
        """
        from attncli.output_formats import RenderOptions

        views = self._views()
        optional_word("format", format, views, "unknown-format")
        return views[format](self, RenderOptions())

    def __str__(self) -> str:
        return self.to_text().rstrip("\n")

    def __repr__(self) -> str:
        """Return the last line of the report: `<Report: wrong: 9 of 9 figures, in weights>`."""
        return f"<{type(self).__name__}: {str(self).splitlines()[-1]}>"

    def _repr_html_(self) -> str:
        from attncli.views.html import write_html_text

        return write_html_text(str(self))
