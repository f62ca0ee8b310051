"""Which data makes the better model? Trains small proxy models on variants of a corpus, and compares them on text that is nobody's."""
