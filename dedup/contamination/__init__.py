"""Decontamination: passages of training documents that are items of evaluation sets."""
