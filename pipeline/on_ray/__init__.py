"""Tasks on Ray: `engine.py` starts or joins a cluster, `dispatch.py` hands tasks to its worker processes."""
