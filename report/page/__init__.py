"""`report.html`: templates, charts, scripts and styles of one page that holds all it needs."""
