"""A result as a page that opens in a browser without a network: a template, a style, the script in `script/`, and the data."""
