"""Scores of transformers' sequence classifiers, such as FineWeb-Edu's: an optional extra, imported where a recipe names it."""
