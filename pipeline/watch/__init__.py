"""What is said of a run while it works: terminal, log, progress, counts. Plays no part in what it writes."""
