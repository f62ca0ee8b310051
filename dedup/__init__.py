"""Removes exact and near duplicates: finds candidates, verifies them, forms clusters, and chooses the copy that stays."""
