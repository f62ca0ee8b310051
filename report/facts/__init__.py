"""What a run's tables say: decisions, origins, duplicates, trainings; computed, and shown nowhere here."""
