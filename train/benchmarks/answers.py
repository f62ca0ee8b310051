"""The results in answers to GSM8K, as lm-evaluation-harness's `gsm8k` (version 3) finds and compares them."""

import re

#: Where a text begins that is no part of the answer any more.
STOPS = ("Question:", "</s>", "<|im_end|>")
NOTHING = "[invalid]"
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = [re.compile(pattern) for pattern in (",", r"\$", r"(?s).*#### ", r"\.$")]


def strict_answer(text: str) -> str:
    """The first number behind `####`."""
    found = _STRICT.findall(text)
    return found[0].strip() if found else NOTHING


def flexible_answer(text: str) -> str:
    """The last number anywhere."""
    found = _FLEXIBLE.findall(text)
    return (found[-1][0] or found[-1][1]).strip() if found else NOTHING


def same_answer(result: str, answer: str) -> bool:
    """Whether a result is the one at the end of the solution `answer`, whatever thousands separators and currencies say."""
    return _plain_answer(result) == _plain_answer(answer)


def _plain_answer(text: str) -> str:
    for pattern in _IGNORED:
        text = pattern.sub("", text)
    return text.lower()
