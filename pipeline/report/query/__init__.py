"""A run's tables as DuckDB relations: for notebooks, for the explorer, and for the queries that the report prints."""
