"""The card of a run's documents for the dataset hub, and their Croissant metadata, written from the run's own tables."""
