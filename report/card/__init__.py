"""Writes the card of a run's documents for the dataset hub, and their Croissant metadata, from the run's own tables."""
