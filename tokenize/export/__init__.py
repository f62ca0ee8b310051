"""Writes token shards in the formats of other training codes; begin with `export.py`."""
