"""Shows what a run did, to people: the report page, terminal tables, the explorer, cards, and answers on single documents and tokens."""
