"""Writes the card of a run's documents for the dataset hub, from the run's own tables."""
