"""Personal data and secrets: what is found, and what stands in its place. `kinds.py` has the table of kinds."""
