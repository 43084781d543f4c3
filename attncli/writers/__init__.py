"""Attention → bytes for programs: every number in full. One file a format; each registers in `attncli.output_formats`."""
