"""Token shards in the formats of other training codes, each a file of its own; `export.py` is the way in."""
