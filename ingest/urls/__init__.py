"""The URL filter: drops pages by lists of domains and URLs, and by words in the URL, before they are extracted."""
