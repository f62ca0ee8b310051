"""The model, its data, pre-training, instruction tuning, preference alignment, evaluation and generation."""
