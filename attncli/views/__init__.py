"""Attention → something to look at. Views never compute what is not on the page; Rich is known here alone."""

FORMAT_MODULES = ("tables", "text")  # the modules that register output formats
