"""A small real crawl for a first run: `python -m corpusmill.pipeline.crawl`."""
