"""What a rule's comparison means (filters/rules.py): a document fails where `value comparison threshold` is true; NaN and null never are.

That of strings with a list (`not in`) is none of these.
"""

import operator
from collections.abc import Callable
from typing import Any

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq,
}  # fmt: skip
