"""Text classifiers: training, calibration, evaluation, and the scoring of documents."""
