"""The explorer: holds a run's reports in memory and serves a local page that filters them."""
