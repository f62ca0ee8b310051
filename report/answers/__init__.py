"""The commands that show a run on a terminal: its tables, its rows, why a document was dropped, and how two runs differ."""
