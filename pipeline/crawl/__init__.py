"""A small real crawl for a first run: from Common Crawl, from the system's documentation packages, or from pydoc."""

from corpusmill.pipeline.crawl.sources import CrawlResult, get_crawl

__all__ = ["CrawlResult", "get_crawl"]
