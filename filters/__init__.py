"""Filters: steps that measure texts, and rules that decide which documents to keep."""
