"""Figures of a result, drawn by matplotlib: heat maps, bars, lines and scatter plots, as PNG, SVG or PDF.

`formats` registers the formats and loads without matplotlib, which the other modules import; `drawing.draw_figure` is the entry.
"""
