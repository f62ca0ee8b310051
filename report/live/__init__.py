"""How far a run is, while it works and after it died."""
