"""Makes `report.html`: templates, charts, scripts and styles of one self-contained page."""
