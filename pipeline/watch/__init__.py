"""Reports a run while it works: bars on the terminal, the log and other files, counts. Nothing here affects the output of a run."""
