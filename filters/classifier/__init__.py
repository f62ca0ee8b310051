"""Text classifiers: their training, calibration and evaluation, and how they score documents."""
