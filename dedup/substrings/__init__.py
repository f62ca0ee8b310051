"""Passages that repeat word for word across documents: found by sampled hashes, proved by hashes of every window, and cut."""
