"""Computes the form `ccnet` of a line in plain Python, as `cc_net/text_normalizer.py` describes it: the slow reference of the kernel."""

import re

from corpusmill.dedup.inside.lines import CCNET_LEFT_OUT


def ccnet_form(line: str) -> str:
    return re.sub(f"[{re.escape(CCNET_LEFT_OUT)}]", "", re.sub(r"\d", "0", line.strip().lower()))
