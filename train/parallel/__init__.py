"""A model on one process or many: PyTorch's own parallelism on one mesh, with one interface for the training loop."""
