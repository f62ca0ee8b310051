"""What a run says while it works: bars on the terminal, the log and other files, counts. Nothing of it decides what a run writes."""
