"""The model, its training (pre-training, instruction tuning, alignment), its evaluation, and text from it."""

import os

# OpenMP reads these when torch is first imported: a thread without work looks for some 3,000 times, then it sleeps. Left alone it spins,
# and with two other programs on two cores a step of an 0.8M model takes 160 ms. Asleep at once (0) it takes 125 ms then, and 60 ms instead
# of 23 on cores of its own, as a step has a thousand regions that last microseconds; with 3,000 it is 74 ms and 23 ms.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}
for _name, _value in WAITING.items():
    os.environ.setdefault(_name, _value)
