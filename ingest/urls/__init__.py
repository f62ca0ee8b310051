"""The URL filter: lists of domains and URLs, and words in the URL, asked before a page is extracted."""
