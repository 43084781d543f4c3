"""A verdict, or a folder of them, as text: `formats` holds a function for each format, and `junit` writes XML for CI."""
