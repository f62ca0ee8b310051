"""Corpusmill: from raw web crawls to training tokens and a small aligned language model."""

__version__ = "0.1.0"
