"""Finds the document of a token, and checks that token shards are unchanged."""
