"""What a run did, for people: the report page, terminal tables, and the questions "why" and "from where"."""
