"""Finds the document of a token and the tokens of a text, and checks that token shards are unchanged."""
