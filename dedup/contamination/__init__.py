"""Decontamination: finds items of evaluation sets in training documents."""
