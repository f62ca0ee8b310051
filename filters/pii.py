"""Finds personal data and secrets, and replaces them with fixed placeholders.

Scans (pii_scan.py) skip nearly all text; the check of each kind then examines the candidates. If two kinds find overlapping text, the
first kind in KINDS wins, and the later find does not count. So the password in a URL is not taken for part of an email address, nor
the digits of an account number for a phone number.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from importlib import import_module
from typing import Self

import pyarrow as pa
from pydantic import Field, create_model, model_validator

from corpusmill.filters.pii_scan import (
    LISTS,
    Check,
    Spans,
    TextColumn,
    account_numbers,
    addresses,
    codes,
    colon_groups,
    counts,
    dotted_numbers,
    numbers,
    prefixes,
    replaced,
    without_overlaps,
)
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config

# ---- Keys, tokens and passwords that their format gives away, as public rule sets (gitleaks, detect-secrets) list them.
#
# Only formats with a fixed beginning or frame count. A random-looking string alone is no evidence: hashes and identifiers look random, too.

FORMATS: dict[str, str] = LISTS["secrets"]
EDGE = r"(?![A-Za-z0-9_])"
_GROUPED = "|".join(f"(?:{pattern})" + ("" if name in ("password in a URL", "private key") else EDGE) for name, pattern in FORMATS.items())
SECRET = re.compile(_GROUPED.encode(), re.ASCII)
#: Placeholders that documentation writes instead of a password.
NO_PASSWORDS = re.compile(
    r"(?:x{3,}|\.{3,}|\[?(?:your|my)?[-_]?(?:pass(?:word|wd|wort)?|pwd|pw|secret|token|kennwort|mot[-_]de[-_]passe|contraseña|senha|пароль|密码)\]?)$".encode(),
    re.IGNORECASE,
)


def check_secret(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    match = SECRET.match(document, start)
    if not match:
        return
    if match.lastgroup == "password" and NO_PASSWORDS.match(match["password"]):
        return
    first, last = match.span(match.lastgroup or 0)
    yield first, last - (len(document[first:last]) - len(document[first:last].rstrip()))


# ---- Email addresses. Addresses in the domains that RFC 2606 reserves for examples belong to nobody and do not count.

# Lengths are bounded (RFC 5321: 64 for the local part, 63 a label) so that no text takes quadratic time.
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
EMAIL = re.compile(
    rb"(?<![A-Za-z0-9._%+-])" + _ATOM + rb"{1,64}(?:\." + _ATOM + rb"{1,64}){0,8}@"
    rb"((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,63})(?![A-Za-z0-9-])"
)
EXAMPLE_DOMAINS = re.compile(rb"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid|localhost)$", re.IGNORECASE)
LONGEST = 9 * 65 + 9 * 64 + 1


def check_email(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    at = document.index(b"@", start, end)
    match = EMAIL.search(document, max(start, at - LONGEST), min(end, at + LONGEST))
    if match and not EXAMPLE_DOMAINS.search(match[1]):
        yield match.span()


# ---- International bank account numbers (ISO 13616). python-stdnum knows lengths and structures by country, and the check modulo 97.

WORD = re.compile(rb"\w")
SEPARATOR = re.compile(rb"[ -]")


@cache
def length_of(country: bytes) -> int:
    """Returns the number of letters and digits in a country's numbers, from python-stdnum's register; 0 if the country has none."""
    from stdnum import numdb

    structure = numdb.get("iban").info(country.decode())[0][1].get("bban", "")
    return sum(map(int, re.findall(r"(\d+)!", structure))) + 4 if structure else 0


def check_iban(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields the number if it has its country's length. Words in capitals that follow (`BIC ...`) do not belong to it."""
    from stdnum import iban

    length, last, seen = length_of(document[start : start + 2]), start, 0
    if not length:
        return
    while last < end and seen < length:
        seen += not SEPARATOR.match(document, last)
        last += 1
    if seen == length and not WORD.match(document, last) and iban.is_valid(document[start:last].decode(), check_country=False):
        yield start, last


# ---- Payment card numbers (ISO/IEC 7812): an issuer's prefix, one of the issuer's lengths, and Luhn's check digit.
#
# Of random digits with the right prefix and length, one string in ten passes Luhn's check. So a number counts only if it stands alone, or
# in the groups that cards print, and not in URLs, file names, decimal fractions or grids of numbers.

#: For each issuer: the first and the last prefix, and the lengths.
ISSUERS = [(*str(prefixes).partition("-")[::2], lengths) for prefixes, lengths in LISTS["card_issuers"].items()]
CARD = re.compile(
    rb"(?<![\w\-./=&#%+:@$\xa0])(?<!\d[ ,])"
    rb"(?:\d{14,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5})"
    rb"(?![\w\-/@%]|[ .,]\d)"
)
FEWEST_DIFFERENT = 2  # digits
#: Longer numbers without groups are mostly identifiers of posts. Only UnionPay issues such card numbers.
LONGEST_PLAIN = 16
PLAIN_AND_LONG = "62"


def is_card_number(number: str) -> bool:
    """Whether the digits are a number that an issuer could have issued."""
    from stdnum import luhn

    known = any(first <= number[: len(first)] <= last and len(number) in lengths for first, last, lengths in ISSUERS)
    return known and len(set(number)) >= FEWEST_DIFFERENT and luhn.is_valid(number)


def check_card(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in CARD.finditer(document, start, min(len(document), end + 2)):  # the look-ahead needs two more bytes
        number = re.sub(rb"[ -]", b"", match[0]).decode()
        plain = len(number) == len(match[0])
        if is_card_number(number) and (not plain or len(number) <= LONGEST_PLAIN or number.startswith(PLAIN_AND_LONG)):
            yield match.span()


# ---- Numbers that states give to persons and that check digits tell from other numbers. python-stdnum knows the checks.
#
# One random number in ten passes a check digit, so a bare number counts only after a word that names it ("PESEL: ..."). A number counts
# anywhere if less than about one in a thousand random numbers of its form pass, because it has letters, a date, fixed parts or two check
# digits; it must stand by itself. The US social security number has no check digit, so no scan looks for it.


@dataclass(frozen=True)
class NationalId:
    """A kind of number: stdnum's `module` checks it. `words`: a pattern that must match shortly before it; empty if none is needed."""

    module: str
    form: str
    words: str = ""


IDS = tuple(NationalId(entry["check"], entry["form"], entry.get("words", "")) for entry in LISTS["national_ids"])
ID_CONTEXT = 64  # the word must stand in this many bytes before the number
_ID_BEFORE = r"(?<![\w.\-/=&#%+:@$,])" r"(?<!\d )"
_ID_AFTER = r"(?![\w\-/@%]|[ .,]\d)"
#: What may stand between the word and the number.
_BRIDGE = (
    r"[\s.:#=\"'()\[\]*|\-–—№：]*(?:(?:number|no|nr|nº|n°|num(?:éro|ero)?|is|ist|er|je|to|kód|kod)\b[\s.:#=\"'()\[\]*|\-–—№：]*){0,2}$"
)


def _check(module: str) -> Callable[[bytes], bool]:
    """Returns a stdnum module's check. stdnum raises KeyError for regions that its registers lack (in Chinese numbers): not valid."""
    is_valid: Callable[[str], bool] = import_module(f"stdnum.{module}").is_valid

    def check_national_id(number: bytes) -> bool:
        try:
            return is_valid(number.decode())
        except (LookupError, ValueError):
            return False

    return check_national_id


@cache
def _with_words() -> tuple[re.Pattern[str], tuple[tuple[re.Pattern[str], re.Pattern[bytes], Callable[[bytes], bool]], ...]]:
    """Returns a pattern of all words at the end of a text, and the words, form and check of each kind of number that needs a word."""
    named = [entry for entry in IDS if entry.words]
    either = "|".join(f"(?:{entry.words})" for entry in named)
    table = tuple(
        (
            re.compile(rf"(?<!\w)(?:{entry.words}){_BRIDGE}", re.IGNORECASE),
            re.compile(rf"(?:{entry.form}){_ID_AFTER}".encode()),
            _check(entry.module),
        )
        for entry in named
    )
    return re.compile(rf"(?<!\w)(?:{either}){_BRIDGE}", re.IGNORECASE), table


@cache
def _alone() -> tuple[re.Pattern[bytes], tuple[tuple[re.Pattern[bytes], Callable[[bytes], bool]], ...]]:
    entries = [entry for entry in IDS if not entry.words]
    table = tuple((re.compile(entry.form.encode()), _check(entry.module)) for entry in entries)
    forms = "|".join(re.sub(r"\\1", " ?", entry.form) for entry in entries)
    return re.compile(rf"{_ID_BEFORE}(?:{forms}){_ID_AFTER}".encode()), table


def check_national_id(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    before = document[max(0, start - ID_CONTEXT) : start].decode(errors="ignore")
    any_word, named = _with_words()
    if any_word.search(before):
        for words, form, is_valid in named:
            match = form.match(document, start)
            if match and words.search(before) and is_valid(match[0]):
                yield match.span()
                return
    any_form, alone = _alone()
    at = start
    while match := any_form.search(document, at, min(len(document), end + 3)):
        at = match.end()
        number = match[0]
        if any(form.fullmatch(number) and is_valid(number) for form, is_valid in alone):
            yield match.span()


# ---- Public IPv6 addresses: the assigned part of global unicast (2000::/4), written with at least three groups.
#
# This excludes times (12:30:15), hardware addresses, ratios and C++ names (`std::add`).

IPV6 = re.compile(rb"(?<![\w:.])2[0-9a-fA-F]{3}(?::{1,2}[0-9a-fA-F]{1,4}){1,7}(?:::)?(?![\w:]|\.\d)")
FEWEST_GROUPS = 3


def check_ipv6(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    match = IPV6.match(document, start)
    if not match or len([group for group in match[0].split(b":") if group]) < FEWEST_GROUPS:
        return
    try:
        address = ipaddress.IPv6Address(match[0].decode())
    except ipaddress.AddressValueError:
        return
    if address.is_global and not address.is_multicast:
        yield match.span()


# ---- Public IPv4 addresses. Version and section numbers look the same; the word before them and small parts tell them apart.

IPV4 = re.compile(rb"(?<![\w.\-+])(?:\d{1,3}\.){3}\d{1,3}(?![\w\-+])(?!\.\d)")
#: Before a dotted number, these words mean that it is a version or a section.
VERSION_BEFORE = re.compile(
    rf"(?:\b(?:{'|'.join(LISTS['version_words'])})\b\.?|(?:\xc2\xa7)+|[A-Za-z0-9_]/)[\s:=#(]*$".encode("latin-1"), re.IGNORECASE
)
SMALL = 32  # most parts of version and section numbers are below this
CONTEXT = 24  # the word must stand in this many bytes before the number


def is_public(address: str, before: bytes) -> bool:
    """Whether a dotted number is somebody's address, given the text before it.

    False if `ipaddress` calls it multicast or not global, if a part has a leading zero, or if it stands after a word for a version or
    section or directly after `name/`. Also false if all four parts are below 32 (12.6.2.1, 8.8.8.8), as in versions, sections and public
    resolvers; that loses 0.02% of all addresses.
    """
    parts = address.split(".")
    if all(int(part) < SMALL for part in parts) or any(len(part) > 1 and part[0] == "0" for part in parts):
        return False
    try:
        number = ipaddress.IPv4Address(address)
    except ipaddress.AddressValueError:
        return False
    return number.is_global and not number.is_multicast and not VERSION_BEFORE.search(before)


def check_ipv4(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    match = IPV4.match(document, start)
    if match and is_public(match[0].decode(), document[max(0, start - CONTEXT) : start]):
        yield match.span()


# ---- Phone numbers that the numbering plans know (the library phonenumbers), in the forms in which people write them.
#
# Many digit strings are a valid number in some country, so the form decides. It must have a `+` and a country code, or a word such as
# "Tel." before it, or a form that is rare elsewhere: (212) 555-0142, 212-555-0142, (030) 1234567, 01 23 45 67 89. Numbers in URLs, names,
# fractions and ranges do not count, nor numbers that the plans reserve for films and books.

#: The countries whose plans may have a national number after "Tel.", in this order.
REGIONS: list[str] = LISTS["phone_regions"]
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
#: Directly before a number, these words and signs mean that it is a phone number.
PHONE_BEFORE = re.compile(
    rf"(?:(?<!\w)(?:{'|'.join(LISTS['phone_words'])})(?!\w)|☎|☏|📞|📱)"
    r"[\s.:)\]*|#\-–—/：]{0,6}(?:(?:number|no|nr|nº|n°|us|at|on|is|now)(?!\w)[\s.:)\]*|#\-–—/：]{0,4}){0,2}(?:\([a-z]\)\s?)?$",
    re.IGNORECASE,
)
PHONE_CONTEXT = 48  # the word must stand in this many bytes before the number
#: Reserved for fiction: 555-0100 to 555-0199 in North America; Ofcom's drama numbers.
FICTION = re.compile(
    r"\+1\d{3}55501\d\d|\+44(?:7700900|1632960|2079460|1144960|1214960|1134960|1174960|1314960|1414960|1514960|1614960)\d{3}"
)
GROUP_END = re.compile(rb"\d(?!\d)")
FOLLOWING = re.compile(rb" ?(?:[/,;]|-) ?(?=[+(]?\d)")
MOST_TRIMMED = 2  # the most groups at the end that may belong to the next number


@lru_cache(maxsize=1 << 14)
def is_valid(number: str, region: str | None) -> bool:
    """Whether a numbering plan has the number. `region` (ISO 3166) is needed if the number has no `+` and country code."""
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    if not phonenumbers.is_valid_number(parsed):
        return False
    return not FICTION.fullmatch(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


def _longest_valid(number: bytes, regions: Iterable[str | None]) -> int:
    """Returns the length, in bytes, of the longest prefix of whole groups that is valid in one of the regions; 0 if there is none."""
    for end in [match.end() for match in GROUP_END.finditer(number)][: -MOST_TRIMMED - 2 : -1]:
        text = number[:end].decode()
        if any(is_valid(text, region) for region in regions):
            return end
    return 0


def _after_word(document: bytes, start: int, end: int, regions: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yields the numbers that follow a word for phones: one, or several with a slash or another sign between them."""
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


def check_phone(document: bytes, start: int, end: int, regions: Sequence[str] = REGIONS) -> Iterator[tuple[int, int]]:
    at = start
    if PHONE_BEFORE.search(document[max(0, start - PHONE_CONTEXT) : start].decode(errors="ignore")):
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


# ---- The kinds, in order of priority: a find of an earlier kind removes the overlapping finds of later kinds


@dataclass(frozen=True)
class Kind:
    """A kind of personal data. No kind ever finds a `placeholder`. `check` yields the finds in a candidate of the `scans`."""

    name: str  # name of the option
    column: str
    scans: tuple[Callable[..., int], ...]
    check: Check
    placeholder: str
    description: str

    def find(self, texts: TextColumn) -> Spans:
        return texts.checked(texts.candidates(*self.scans), self.check)


KINDS = (
    Kind("secret", "pii_secrets", (prefixes,), check_secret, "<SECRET>", "a key, token or password that its format gives away"),
    Kind("email", "pii_emails", (addresses,), check_email, "email@example.com", "an email address"),
    Kind("iban", "pii_ibans", (account_numbers,), check_iban, "<IBAN>", "an international bank account number"),
    Kind("credit_card", "pii_credit_cards", (numbers,), check_card, "<CREDIT_CARD>", "a payment card's number"),
    Kind("national_id", "pii_national_ids", (numbers, codes), check_national_id, "<NATIONAL_ID>",
         "a person's number with check digits, of 30 countries"),
    Kind("ipv6", "pii_ipv6", (colon_groups,), check_ipv6, "2001:db8::1", "a public IPv6 address"),
    Kind("ipv4", "pii_ipv4", (dotted_numbers,), check_ipv4, "192.0.2.1", "a public IPv4 address"),
    Kind("phone", "pii_phones", (numbers,), check_phone, "+1-202-555-0100", "a phone number"),
)  # fmt: skip


# ---- The step


class _Options(Config):
    kinds: tuple[str, ...] = Field(
        tuple(kind.name for kind in KINDS), description="The kinds to find; other kinds are neither counted nor replaced."
    )
    phone_regions: tuple[str, ...] | None = Field(
        None, description="Countries (ISO 3166) whose national phone numbers are looked for; by default about 40 large ones."
    )
    most: dict[str, int] = Field(
        {}, description="A document fails with more finds of a kind than this: `{email: 20}` makes the rule `pii_emails`. None by default."
    )

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        names = [kind.name for kind in KINDS]
        for name in self.kinds:
            if name not in names:
                raise ValueError(f"kinds: no such kind: {name!r} (expected one of {', '.join(names)})")
        for name, limit in self.most.items():
            if name not in self.kinds:
                raise ValueError(f"most.{name}: no such kind (expected one of {', '.join(self.kinds)})")
            if limit < 0:
                raise ValueError(f"most.{name}: {limit} is below 0")
        if self.phone_regions is not None:
            from phonenumbers import SUPPORTED_REGIONS

            for region in self.phone_regions:
                if region not in SUPPORTED_REGIONS:
                    raise ValueError(f"phone_regions: {region!r} is no country with a numbering plan (ISO 3166, such as US)")
        return self


#: An option for each kind: the placeholder for its finds.
PiiConfig = create_model(
    "PiiConfig",
    __base__=_Options,
    __doc__="The placeholder for each kind of personal data and secrets.",
    **{
        kind.name: (str | None, Field(kind.placeholder, description=f"The placeholder for {kind.description}; null leaves it as it is."))
        for kind in KINDS
    },
)  # type: ignore[call-overload]


class Pii(Step):
    Config = PiiConfig
    MEANINGS = {kind.column: f"{{count}} finds of {kind.description}" for kind in KINDS}
    rewrites = True

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of the recipe, in order of priority."""
        found = [kind for kind in KINDS if kind.name in self.config.kinds]
        if self.config.phone_regions is None:
            return found
        phone = partial(check_phone, regions=self.config.phone_regions)
        return [replace(kind, check=phone) if kind.name == "phone" else kind for kind in found]

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {kind.column: pa.int64() for kind in self.kinds}

    @property
    def rules(self) -> tuple[Rule, ...]:
        limits = self.config.most
        return tuple(Rule(kind.column, kind.column, ">", limits[kind.name]) for kind in self.kinds if kind.name in limits)

    def measure(self, batch: DocumentBatch) -> StepOutput:
        """Counts and replaces finds. A find counts even if the recipe does not replace it."""
        texts = TextColumn(batch.text)
        kinds = self.kinds
        found = without_overlaps([kind.find(texts) for kind in kinds])
        columns = {kind.column: counts(texts, spans) for kind, spans in zip(kinds, found)}
        placeholders = [getattr(self.config, kind.name) for kind in kinds]
        chosen = [(spans, text) for spans, text in zip(found, placeholders) if text is not None]
        return StepOutput(columns, replaced(batch.text, texts, chosen))
