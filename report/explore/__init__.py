"""The explorer: a run's reports in memory, and a local page that filters them."""
