"""Exact and near duplicates: candidates, verification, clusters, and which copy stays."""
