"""The data of a report. DuckDB computes each number, and the page prints the query that computed it."""
