"""A model on one process or many: PyTorch's own parallelism on one mesh, behind the interface of the training loop."""
