"""The first stage: makes one table of documents from crawls and other collections, and one report with a row for each record."""
