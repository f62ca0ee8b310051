"""Measuring text and deciding about it."""
