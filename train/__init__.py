"""The model, its training (pre-training, instruction tuning, alignment), its evaluation, and text from it."""

import os

# OpenMP reads these settings when torch is first imported: an idle thread checks for work some 3,000 times, then it sleeps. By default it
# never sleeps: a step of a 0.8M model then takes 160 ms where two other programs share its two cores. With sleep at once (0) it is 125 ms
# there, but on free cores 60 ms instead of 23, as a step has a thousand parallel regions of microseconds. With 3,000: 74 ms and 23 ms.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}
for _name, _value in WAITING.items():
    os.environ.setdefault(_name, _value)
