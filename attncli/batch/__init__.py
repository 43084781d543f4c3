"""Many inputs: what they are, what is done to each, by whom, and what has been done."""
