"""Pieces on Ray: actors, which of them gets what, and what becomes of those that die."""
