"""Phone numbers that the numbering plans know (the library phonenumbers), in the forms in which people write them.

Many numbers would be valid somewhere, so the form must tell: a `+` and a country; a word such as "Tel." before; or a form that hardly
anything else has: (212) 555-0142 and 212-555-0142, (030) 1234567, 01 23 45 67 89. Numbers in URLs, names, fractions and ranges don't count.
Numbers that plans reserve for films and books belong to nobody.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial

from corpusmill.filters.pii.spans import Spans, Texts

#: Where a national number after "Tel." is looked for, in this order.
REGIONS = (
    "US", "GB", "DE", "FR", "IT", "ES", "NL", "BE", "AT", "CH", "PL", "PT", "SE", "NO", "DK", "FI", "IE", "CZ", "SK", "HU", "RO", "BG",
    "GR", "HR", "SI", "RS", "LT", "LV", "EE", "UA", "RU", "TR", "IL", "SA", "AE", "EG", "ZA", "NG", "KE", "IN", "PK", "BD", "CN", "TW",
    "HK", "SG", "JP", "KR", "VN", "TH", "ID", "MY", "PH", "AU", "NZ", "BR", "MX", "AR", "CL", "CO", "PE",
)  # fmt: skip
_GAP = rb"(?:[ .\-/()]|\xc2\xa0|\xe2\x80[\x90-\x93\xaf]){0,4}"
_BEFORE = rb"(?<![\w.,\-/=&#%+@$\xa0~])"
_AFTER = rb"(?![\w%@]|[.,:/\-]\d|[-/][A-Za-z])"
INTERNATIONAL = re.compile(rb"(?<![\w=&#%+@$)])(?:\(\+|\+\(?)\d(?:" + _GAP + rb"\d){6,14}(?!\d)" + _AFTER)
NATIONAL = re.compile(rb"\(?\+?\d(?:" + _GAP + rb"\d){6,14}(?!\d)" + _AFTER)
FORMS = (
    (
        "US",
        re.compile(_BEFORE + rb"(?<!\d[ /])(?:\+?1[-. ])?(?:\(\d{3}\) ?\d{3}[-. ]\d{4}|\d{3}-\d{3}-\d{4}|\d{3}\.\d{3}\.\d{4})" + _AFTER),
    ),
    ("FR", re.compile(_BEFORE + rb"(?<!\d[ /])0[1-9]([ .\-])\d\d\1\d\d\1\d\d\1\d\d(?!\1\d)" + _AFTER)),
    ("", re.compile(_BEFORE + rb"(?<!\d[ /])\(0\d{1,4}\)[ -]?\d{3,8}(?:[ -]?\d{2,4}){0,2}" + _AFTER)),
)
#: Directly before a number these say that it is a phone's.
PHONE_BEFORE = re.compile(
    r"(?:(?<!\w)(?:tel|telephone|phone|ph|telefono|teléfono|telefone|telefon|telefoon|téléphone|tél|tlf|tlfn|fax|telefax|facsimile|fono|fone|mobile|mob|mobil|cell|"
    r"call|whatsapp|hotline|handy|gsm|móvil|movil|celular|cellulare|portable|puhelin|puh|τηλ|тел|телефон|факс|моб|電話|电话|手机|전화|هاتف|"
    r"dial|helpline|freephone|toll[- ]free|contact no|call us(?: at| on)?|phone number|telephone number|sms)(?!\w)|☎|☏|📞|📱)"
    r"[\s.:)\]*|#\-–—/：]{0,6}(?:(?:number|no|nr|nº|n°|us|at|on|is|now)(?!\w)[\s.:)\]*|#\-–—/：]{0,4}){0,2}(?:\([a-z]\)\s?)?$",
    re.IGNORECASE,
)
CONTEXT = 48  # bytes
#: Reserved for fiction: 555-0100 to 555-0199 in North America; Ofcom's drama numbers.
FICTION = re.compile(
    r"\+1\d{3}55501\d\d|\+44(?:7700900|1632960|2079460|1144960|1214960|1134960|1174960|1314960|1414960|1514960|1614960)\d{3}"
)
GROUP_END = re.compile(rb"\d(?!\d)")
FOLLOWING = re.compile(rb" ?(?:[/,;]|-) ?(?=[+(]?\d)")
MOST_TRIMMED = 2  # groups that may belong to the next number


@lru_cache(maxsize=1 << 14)
def is_valid(number: str, region: str | None) -> bool:
    """Whether a numbering plan has the number; `region` (ISO 3166) is needed where it has no `+` and country."""
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    if not phonenumbers.is_valid_number(parsed):
        return False
    return not FICTION.fullmatch(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


def _longest_valid(number: bytes, regions: Iterable[str | None]) -> int:
    """Bytes of the longest beginning, of whole groups, that is valid in one of the regions; 0 where none is."""
    for end in [match.end() for match in GROUP_END.finditer(number)][: -MOST_TRIMMED - 2 : -1]:
        text = number[:end].decode()
        if any(is_valid(text, region) for region in regions):
            return end
    return 0


def _after_word(document: bytes, start: int, end: int, regions: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The numbers of a run that follows a word for phones: one, or some with a slash or other sign between."""
    while match := NATIONAL.match(document, start):
        international = match[0].lstrip(b"(").startswith((b"+", b"00"))
        text = match[0].replace(b"00", b"+", 1) if match[0].startswith(b"00") else match[0]
        length = _longest_valid(text, (None,) if international else regions) - len(text) + len(match[0])
        if length <= len(match[0]) - len(text):
            return
        yield start, start + length
        following = FOLLOWING.match(document, start + length, end)
        if not following:
            return
        start = following.end()


def check(document: bytes, start: int, end: int, regions: Sequence[str]) -> Iterator[tuple[int, int]]:
    at = start
    if PHONE_BEFORE.search(document[max(0, start - CONTEXT) : start].decode(errors="ignore")):
        for first, at in _after_word(document, start, end, regions):
            yield first, at
    if at == start and (match := INTERNATIONAL.match(document, start)) and (length := _longest_valid(match[0], (None,))):
        at = start + length
        yield start, at
    for region, form in FORMS:
        if region and region not in regions:
            continue
        for match in form.finditer(document, at, min(len(document), end + 3)):
            if any(is_valid(match[0].decode(), here) for here in ((region,) if region else regions)):
                yield match.span()


def find(texts: Texts, regions: Sequence[str] = REGIONS) -> Spans:
    return texts.checked(texts.numbers, partial(check, regions=regions))
