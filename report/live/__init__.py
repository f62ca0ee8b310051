"""Shows how far a run is, while it works and after it has ended."""
