"""Repeats inside documents: lines and paragraphs, and passages of words."""
