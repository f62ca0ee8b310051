"""The model, its training (pre-training, instruction tuning, alignment), its evaluation, and text from it."""

import os

# OpenMP reads this when torch is first imported. Its default makes idle threads spin: with another program on the same
# cores a step of a small model then took 20 to 100 times as long (measured; benchmarks/pretrain.py with a busy machine).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
