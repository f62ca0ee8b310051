"""A model on one process or many: PyTorch's own parallelism on one mesh, behind the few things that the loop asks for."""
