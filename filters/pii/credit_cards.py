"""Payment card numbers (ISO/IEC 7812): an issuer's prefix with one of its lengths, and Luhn's check digit.

One digit string of the right prefix and length in ten passes Luhn by chance, so the number must stand by itself: alone, or in the groups
that cards print. In URLs, names of files, decimal fractions and grids of numbers it doesn't count.
"""

import re
from collections.abc import Iterator

from corpusmill.filters.pii.spans import Spans, Texts

#: First and last prefix, lengths. Visa's 13 digits are long out of use, and look like European article numbers.
ISSUERS = (
    ("4", "4", (16, 19)),  # Visa
    ("51", "55", (16,)),  # Mastercard
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),
    ("6011", "6011", (16, 19)),  # Discover
    ("644", "659", (16, 19)),
    ("62", "62", (16, 17, 18, 19)),  # UnionPay
    ("3528", "3589", (16, 17, 18, 19)),  # JCB
    ("300", "305", (14, 16, 19)),  # Diners Club
    ("36", "36", (14, 16, 19)),
    ("38", "39", (14, 16, 19)),
    ("2200", "2204", (16,)),  # Mir
    ("6304", "6304", (16,)),  # Maestro
    ("6759", "6763", (16,)),
)
CARD = re.compile(
    rb"(?<![\w\-./=&#%+:@$\xa0])(?<!\d[ ,])"
    rb"(?:\d{14,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5})"
    rb"(?![\w\-/@%]|[ .,]\d)"
)
FEWEST_DIFFERENT = 2  # digits
#: Longer numbers without groups are mostly identifiers of posts; only UnionPay gives such out.
LONGEST_PLAIN = 16
PLAIN_AND_LONG = "62"


def is_card_number(number: str) -> bool:
    """Whether digits are a number that an issuer could have given out."""
    from stdnum import luhn

    known = any(first <= number[: len(first)] <= last and len(number) in lengths for first, last, lengths in ISSUERS)
    return known and len(set(number)) >= FEWEST_DIFFERENT and luhn.is_valid(number)


def check(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in CARD.finditer(document, start, min(len(document), end + 2)):  # the look-ahead needs two more
        number = re.sub(rb"[ -]", b"", match[0]).decode()
        plain = len(number) == len(match[0])
        if is_card_number(number) and (not plain or len(number) <= LONGEST_PLAIN or number.startswith(PLAIN_AND_LONG)):
            yield match.span()


def find(texts: Texts) -> Spans:
    return texts.checked(texts.numbers, check)
