"""Folders on object stores: reading, publishing, and asking again."""
