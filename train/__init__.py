"""The model, its training (pre-training, instruction tuning, alignment), its evaluation, and text from it."""

import os

# OpenMP reads this when torch is first imported. By default idle threads spin: on two cores of its own a step of a
# 1.3M model then takes 95 ms instead of 130, but with other programs on the same cores 0.6 to 8 s instead of 0.3.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
