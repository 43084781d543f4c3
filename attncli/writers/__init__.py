"""Write results for programs, with every digit. One file a format; each registers with `attncli.output_formats`."""
