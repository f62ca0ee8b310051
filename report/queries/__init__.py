"""What a report says of a run. DuckDB computes each number, and the page prints the query that did."""
