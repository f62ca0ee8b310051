"""Filters of other projects, measured as these measure them, so that their thresholds mean here what they mean there."""
