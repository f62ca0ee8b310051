"""From a token to its document and back, and whether token shards are what was written."""
