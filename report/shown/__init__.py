"""The numbers that the page shows, each table with the query that gives them again."""
