"""Lines and paragraphs that repeat across the corpus: counted over the documents that stay, and cut."""
