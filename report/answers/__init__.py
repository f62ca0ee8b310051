"""What a terminal shows: the tables of a run, its rows, and the questions why, what else, and what differs."""
