"""The first stage: crawls and other collections become one table of documents and one report on every record."""
