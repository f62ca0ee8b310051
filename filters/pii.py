"""Finds personal data and secrets, and replaces them with fixed placeholders.

Scans (pii_scan.py) skip nearly all text; the finder of each kind then reads the candidates with some text before and behind them. If two
kinds find overlapping text, the first kind in KINDS wins, and the later find does not count. So the password in a URL is not taken for
part of an email address, nor the digits of an account number for a phone number. The tables of formats and words are in pii.yaml.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, partial
from importlib import import_module
from itertools import pairwise
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import regex
from pydantic import Field, create_model, model_validator

from corpusmill.filters.pii_scan import (
    ADDRESSES,
    FEWEST_DIGITS,
    LISTS,
    NUMBERS,
    PREFIXES,
    Spans,
    TextColumn,
    counts,
    replaced,
    without_overlaps,
)
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.names import instead_of

Found = Iterator[tuple[int, int]]  # start and end of each find

# ---- Candidates: digits, spaces, hyphens and full-width signs beyond ASCII are read as ASCII's. One character stays one character.

_DIGITS, _SPACES, _HYPHENS = (
    "".join(map(chr, (c for c in range(128, 0x10000) if unicodedata.category(chr(c)) == kind))) for kind in ("Nd", "Zs", "Pd")
)
UNPLAIN = re.compile(f"[{_DIGITS}{_SPACES}{_HYPHENS}−{chr(0xFF01)}-{chr(0xFF5E)}]")


def _plain(match: re.Match[str]) -> str:
    sign = match[0]
    if sign in _SPACES:
        return " "
    return str(unicodedata.digit(sign, "-")) if not "！" <= sign <= "～" else chr(ord(sign) - 0xFEE0)


ALWAYS = re.compile(r"(?<![\w/])24/7(?![\w/])")


class Candidate:
    """A candidate of a scan: `text` has it from `start` to `end`, with some text around.

    `labels`: what labels name, by the place where the number begins. `anywhere`: one of the forms that need no label may be there.
    `follows`: a phone number and a word such as "or" stand before it. `regions`: whose national phone numbers count.
    """

    labels: dict[int, set[str]]
    anywhere: bool
    follows: bool
    regions: Sequence[str]

    def __init__(self, document: bytes, start: int, end: int, before: int, behind: int):
        first, last = max(0, start - before), min(len(document), end + behind)
        while document[first] & 0xC0 == 0x80:
            first += 1
        while last < len(document) and document[last] & 0xC0 == 0x80:
            last += 1
        self.first = first
        self.original = document[first:last].decode()
        self.ascii = len(self.original) == last - first
        self.text = self.original if self.ascii else UNPLAIN.sub(_plain, self.original)
        if "24/7" in self.text:  # "Tel. (24/7): ..."
            self.text = ALWAYS.sub("days", self.text)
        self.start, self.end = start - first, end - first
        if not self.ascii:
            self.start, self.end = len(document[first:start].decode()), len(document[first:end].decode())

    @property
    def earliest(self) -> int:
        """Where a number may begin: groups of letters, or the first line of a passport, may stand before the first digit."""
        return max(0, self.start - (60 if "<" in self.text else 8))

    def offset(self, place: int) -> int:
        """Returns the offset of a character in the document, in bytes."""
        return self.first + (place if self.ascii else len(self.original[:place].encode()))


# ---- Words before a number that say what it is: "Tel.", "DNI", "version"

WORD = re.compile(r"[^\W\d_]+|[^\W_]+")
MARKED = "\u0590"  # from here on, scripts have marks between letters, which `re` does not count to a word
MARKED_WORD = regex.compile(r"[\p{L}\p{M}]+|[\p{L}\p{M}\p{N}]+")
#: A word, or the last letter of "d.n.i.".
QUICK_WORD = re.compile(r"[^\W\d_]{2,}|(?<=\w[./])[^\W\d_](?=[./])|(?<=[./] )[^\W\d_](?=[./])|[^\x00-\x7f]")
LABEL_CONTEXT = 44  # the word must stand in this many bytes before the number
MOST_WORDS = 5  # of a label
MOST_BRIDGES = 3
LONGEST_HEAD = 30  # characters of a line that has a label alone, and its number on the next
#: Between two words of a label, and between a label and its number: at most one end of a line, so not across a paragraph.
GAP = re.compile(r"[^\w\n]{0,4}")
LAST_GAP = re.compile(r"[^\w\n]{0,8}(?:\n[^\w\n]{0,4})?")
LETTER_LABEL = re.compile(rf"(?<!\w)(?:{LISTS['words']['letter'].replace(', ', '|')})\W{{1,3}}\Z")
SURE = re.compile(r"[:|\t\n]| -")  # between a label and its number
#: At least nine digits; seven or eight without a separator.
LONG = re.compile(r"(?:[ .\-/()+]{0,3}\d){9}")
SHORT_PLAIN = re.compile(r"\d{7,8}(?!\d)")
STRONG = frozenset(LISTS["strong"].split())
UNSPACED, EAST_ASIA = "\u0e00", "\u3040"  # scripts without spaces between words, and those of East Asia, come from here on


def _lower(text: str) -> str:
    """Returns the text in small letters, each one character: `İ` has two in Unicode."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(sign.lower()[0] for sign in text)


def _key(label: str) -> str:
    return " ".join(MARKED_WORD.findall(label.lower()))


class Words:
    """Words, of which `word*` stands for all that begin so, and `*word*` for all that have it in them."""

    def __init__(self, words: Iterable[str]):
        given = list(words)
        parts = dict.fromkeys(word.strip("*") for word in given if word[0] == "*")
        self.whole = frozenset(word for word in given if word[-1] != "*")
        self.starts = tuple(word[:-1] for word in given if word[-1] == "*" != word[0])
        self.parts, self.ascii_parts = (re.compile("|".join(some)) for some in (parts, filter(str.isascii, parts)))

    def __contains__(self, word: str) -> bool:
        return word in self.whole or word.startswith(self.starts) or self.parts.search(word) is not None


@dataclass(frozen=True)
class Labels:
    """The tables of labels. A label names kinds of words in pii.yaml, or the number of a row of `national_ids`."""

    named: dict[str, set[str]]  # by the words of the label
    last_words: frozenset[str]  # of all labels
    quick_words: frozenset[str]  # the last words of those for phones and national numbers
    unspaced: tuple[str, ...]  # the labels of scripts without spaces
    phones: Words  # beginnings and parts of words alone
    things: Words  # for what is no phone


def _split(labels: str) -> Iterator[str]:
    return filter(None, map(str.strip, labels.lower().split(",")))


@cache
def label_table() -> Labels:
    named: dict[str, set[str]] = {}
    quick_words: set[str] = set()
    phones = [label for labels in LISTS["phones"].values() for label in _split(labels)]
    rows = [("phone", [label for label in phones if label[-1] != "*"])]
    rows += [(name, [*_split(labels)]) for name, labels in LISTS["words"].items()]
    rows += [(str(place), [*_split(row["words"])]) for place, row in enumerate(LISTS["national_ids"])]
    for name, labels in rows:
        for label in labels:
            named.setdefault(_key(label), set()).add(name)
            if name in ("phone", "desk") or name.isdigit():
                quick_words.update(QUICK_WORD.findall(f" {label} ")[-1:])
    return Labels(
        named,
        frozenset(label.rpartition(" ")[2] for label in named),
        frozenset(quick_words),
        tuple(label for label in named if label[-1] >= UNSPACED),
        Words(label for label in phones if label[-1] == "*"),
        Words(_split(LISTS["things"])),
    )


BRIDGES = frozenset(_key(word) for word in LISTS["bridges"].split(","))


def names_a_number(candidate: Candidate) -> bool:
    """Whether a label for phones or national numbers could stand before a candidate: a quick test that most fail."""
    table, text, start = label_table(), candidate.text, candidate.start
    before = _lower(text[max(0, start - LABEL_CONTEXT) : candidate.end])
    words = QUICK_WORD.findall(before)[-2 * MOST_BRIDGES :]
    phones = table.phones
    if not table.quick_words.isdisjoint(words) or phones.ascii_parts.search(before) or any(w.startswith(phones.starts) for w in words):
        return True
    if text[start] == "0" and LETTER_LABEL.search(text[:start].lower()):
        return True
    stem = table.phones.parts.search(before) is not None
    if stem or max(before) < MARKED:
        return stem
    words = MARKED_WORD.findall(before)[-2 * MOST_BRIDGES :]
    return not table.last_words.isdisjoint(words) or any(end.endswith(table.unspaced) for word in words for end in (word, word[:-1]))


def labels_in(candidate: Candidate) -> dict[int, set[str]]:
    """Returns what labels name, by the place where the named number must begin."""
    table, text, start = label_table(), candidate.text, candidate.start
    lowered = _lower(text[: candidate.end])
    spaced = max(lowered) < MARKED
    words = [(match[0], *match.span()) for match in (WORD if spaced else MARKED_WORD).finditer(lowered, max(0, start - LABEL_CONTEXT))]
    if words and words[0][1] and text[words[0][1] - 1].isalnum():
        words.pop(0)  # the end of a longer word
    near = max(0, sum(begin < start for _, begin, _ in words) - 2 * MOST_BRIDGES)
    found: dict[int, set[str]] = {}
    for place, (word, _, named_until) in enumerate(words[near:-1], near):
        names: set[str] = set()
        if word in table.last_words:
            for count in range(1, min(MOST_WORDS, place + 1) + 1):
                names |= table.named.get(" ".join(each[0] for each in words[place - count + 1 : place + 1]), set())
        if word in table.phones:
            names.add("phone")
        for end in (word, word[:-1]) if not spaced and word[-1] >= UNSPACED else ():  # a particle may follow the label: 番号は
            if end.endswith(table.unspaced):
                names = names.union(*(table.named[label] for label in table.unspaced if end.endswith(label)))
        strange, after = 0, named_until
        for bridge, begin, stop in words[place + 1 : place + 2 + MOST_BRIDGES] if names else ():
            gap = LAST_GAP.fullmatch(text, after, begin)
            if gap and (gap[0] or word[-1] >= UNSPACED) and not gap[0].endswith("/") and begin >= candidate.earliest:
                while begin > after and text[begin - 1] in "(+":
                    begin -= 1
                clear = text[begin] in "(+0" or ":" in gap[0]  # "Call Anna on 030 901820", "Fax Redaktion: ..."
                head = named_until - text.rfind("\n", 0, named_until) <= LONGEST_HEAD and not gap[0].strip(" .\n")
                plain = SHORT_PLAIN.match(text, begin) and not gap[0].strip(" \n") and after == named_until
                weak = plain and names == {"phone"} and word not in STRONG and word not in table.phones and word[-1] < UNSPACED
                if names == {"desk"}:
                    clear = LONG.match(text, begin) is not None and (clear or SURE.search(gap[0]) is not None)
                    weak = not clear
                if clear or not (strange > ("version" in names) or weak or ("\n" in gap[0] and (plain or not head))):
                    found[begin] = found.get(begin, set()) | names
            strange += bridge not in BRIDGES
            names = names - ({"letter", "other", "desk"} if strange else {"letter"})  # "T 030 901820", "Customer service: ..."
            if (strange and bridge.isdigit()) or strange > 2 or not GAP.fullmatch(text, after, begin):
                break
            after = stop
    return found


# ---- Keys, tokens and passwords that their format gives away, as public rule sets (gitleaks, detect-secrets) list them.
#
# Only formats with a fixed beginning or frame count. A random-looking string alone is no evidence: hashes and identifiers look random, too.

#: Placeholders that documentation writes instead of a password.
NO_PASSWORDS = re.compile(
    r"(?:x{3,}|\.{3,}|\[?(?:your|my)?[-_]?(?:pass(?:word|wd|wort)?|pwd|pw|secret|token|kennwort|mot[-_]de[-_]passe|contraseña|senha|пароль|密码)\]?)$".encode(),
    re.IGNORECASE,
)
NO_EDGE = ("password in a URL", "private key")


def _secret_forms() -> dict[bytes, list[tuple[str, re.Pattern[bytes]]]]:
    """Returns the forms of secrets by the three bytes with which they begin."""
    forms: dict[bytes, list[tuple[str, re.Pattern[bytes]]]] = {}
    for name, form in LISTS["secrets"].items():
        *literals, rest = form.split()
        edge = "" if name in NO_EDGE else r"(?![A-Za-z0-9_])"
        for literal in literals:
            pattern = re.compile(f"{re.escape(literal)}(?:{rest}){edge}".encode(), re.ASCII)
            forms.setdefault(literal.encode()[:3], []).append((name, pattern))
    return forms


SECRET_FORMS = _secret_forms()


def find_secrets(document: bytes, start: int, end: int, last: tuple[str, int]) -> Iterator[tuple[str, int, int]]:
    for name, form in SECRET_FORMS.get(document[start:end], ()):
        match = form.match(document, start)
        if match and not (name == "password in a URL" and NO_PASSWORDS.match(match["hide"])):
            first, past = match.span("hide" if form.groupindex else 0)
            yield "secret", first, first + len(document[first:past].rstrip())
            return


# ---- Email addresses. Addresses in the domains that RFC 2606 reserves for examples belong to nobody and do not count.

# The letters of a name or label are those of scripts with spaces between words, or of others: a Chinese sentence is not part of an address
# in it. The signs are those that people's addresses have; RFC 5322 allows more, which stand around addresses far more often than in them.
# Lengths are bounded (RFC 5321: 64 for the local part, 63 a label).
_SPACED = r"A-Za-z0-9À-ÖØ-öø-ʯ\u0300-ԯ\u1e00-\u1fff"
_SIGN = r"(?:[^\W\d_\x00-ԯ\u1e00-\u1fff]|[\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0dff\u0e31-\u0e4e])"
_UNSPACED = rf"{_SIGN}{{1,20}}"
LOCAL = re.compile(rf"(?:(?<![{_SPACED}_])[{_SPACED}_](?:[{_SPACED}_.+%'~&-]{{0,62}}[{_SPACED}_.+~-])?|{_UNSPACED})\Z")
DOMAIN = re.compile(rf"(?:(?:[{_SPACED}](?:[{_SPACED}-]{{0,61}}[{_SPACED}])?|{_UNSPACED})\.){{1,8}}(?:[{_SPACED}-]{{2,63}}|{_UNSPACED})")
LOCAL_CONTEXT, DOMAIN_CONTEXT = 400, 600
#: In a URL, only what follows `?` or `#` can be an address; before, it is the name of an account or a message at a host.
IN_URL = re.compile(r"://[^\s<>\"'?#]*\Z")
SERVICES = frozenset({"git", "hg", "svn"})
EXAMPLE_DOMAINS = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid|localhost)$", re.IGNORECASE)
#: Names of algorithms and extensions (RFC 4251, section 6), of databases behind words of SQL and commands, and hosts of nobody.
NOBODY = re.compile("|".join(LISTS["nobody"]), re.IGNORECASE)
DATABASE_BEFORE = re.compile(rf"\b(?:{LISTS['database_words'].replace(', ', '|')})\s{{1,3}}[\"'`]?\Z")


@cache
def top_domains() -> frozenset[str]:
    """Returns all top-level domains, from the list of public suffixes that tldextract ships."""
    import tldextract

    return frozenset(tldextract.TLDExtract(suffix_list_urls=()).tlds)


@lru_cache(maxsize=1 << 12)
def is_top_domain(label: str) -> bool:
    if label not in (label.lower(), label.upper(), label.title()):  # Pascal's @M.DoX
        return False
    label = label.lower()
    if label.startswith("xn--"):
        try:
            label = label[4:].encode().decode("punycode")
        except UnicodeError:
            return False
    return label in top_domains()


def find_emails(document: bytes, start: int, end: int, last: tuple[str, int]) -> Iterator[tuple[str, int, int]]:
    candidate = Candidate(document, start, end, min(LOCAL_CONTEXT, start - last[1]), DOMAIN_CONTEXT)
    text, at = candidate.original, candidate.start
    local = LOCAL.search(text, max(0, at - 64), at)
    domain = DOMAIN.match(text, at + 1)
    if not local or not domain or local[0] in SERVICES or IN_URL.search(text, 0, local.start()):
        return
    if text[local.start() - 1 : local.start()] == "@":  # the name of an account: @anna@mastodon.social
        return
    labels = domain[0].rstrip("-").split(".")
    while len(labels) > 1 and not is_top_domain(labels[-1]):
        labels.pop()
    host = ".".join(labels)
    if len(labels) > 1 and not EXAMPLE_DOMAINS.search(host) and not NOBODY.fullmatch(f"{local[0]}@{host}"):
        if DATABASE_BEFORE.search(text, max(0, local.start() - 16), local.start()):
            return
        name = local[0].lstrip("_")
        escaped = text[local.start() - 1 : local.start()] == "\\" and name[:1] in "nrt"  # a newline in JSON
        if name := name[escaped:]:
            yield "email", candidate.offset(at - len(name)), candidate.offset(at + 1 + len(host))


# ---- Addresses whose signs are words: "anna at host dot org", "anna [at] host.org". Behind a bare word for `@`, a dot is a word, too.

_AT, _DOT = (f"(?i:{'|'.join(LISTS[name].split())})" for name in ("at", "dot"))
_FRAMED = r"\s?(?:[\[({{<]\s?{0}\s?[\])}}>]|_{0}_)\s?"
_ANY_DOT = rf"(?:{_FRAMED.format(_DOT)}|\s{_DOT}\s|\.)"
_PART = r"[A-Za-z0-9](?:[\w+-]{0,30}[A-Za-z0-9])?"
HIDDEN_EMAIL = re.compile(
    rf"(?<![\w@.])(?P<name>(?:{_PART}{_ANY_DOT}){{0,2}}{_PART})(?:(?P<framed>{_FRAMED.format(_AT)}|\sAT\s)|\s{_AT}\s)"
    rf"(?P<host>{_PART}(?:{_ANY_DOT}{_PART}){{1,4}})".encode()
)
ANY_DOT = re.compile(_ANY_DOT.encode())
NO_NAMES = frozenset(LISTS["no_names"].encode().split())  # "he works at company dot org"


def find_hidden_emails(document: bytes) -> Found:
    for match in HIDDEN_EMAIL.finditer(document):
        host = ANY_DOT.sub(b".", match["host"]).decode()
        sure = match["framed"] or (host.encode() != match["host"] and match["name"].lower() not in NO_NAMES)
        if sure and is_top_domain(host.rpartition(".")[2]) and not EXAMPLE_DOMAINS.search(host):
            yield match.span()


# ---- International bank account numbers (ISO 13616). python-stdnum knows lengths and structures by country, and the check modulo 97.

IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d\d(?:[ -]?[A-Z0-9]){11,30}", re.ASCII | re.IGNORECASE)


@cache
def length_of(country: str) -> int:
    """Returns the number of letters and digits in a country's numbers, from python-stdnum's register; 0 if the country has none."""
    from stdnum import numdb

    structure = numdb.get("iban").info(country)[0][1].get("bban", "")
    return sum(map(int, re.findall(r"(\d+)!", structure))) + 4 if structure else 0


def find_ibans(candidate: Candidate) -> Found:
    """Yields the number if it has its country's length. Words in capitals that follow (`BIC ...`) do not belong to it."""
    from stdnum import iban

    text, at = candidate.text, candidate.start
    while match := IBAN.search(text, at):
        at = match.start() + 1
        length = length_of(match[0][:2].upper())
        places = [place for place, sign in enumerate(match[0]) if sign not in " -"]
        if length and len(places) >= length:
            past = match.start() + places[length - 1] + 1
            number, behind = text[match.start() : past], text[past : past + 1]
            whole = not behind.isalnum() or behind >= UNSPACED
            if whole and (number.isupper() or number.islower()) and iban.is_valid(number, check_country=False):
                yield match.start(), past
                at = past


# ---- Payment card numbers (ISO/IEC 7812): an issuer's prefix, one of the issuer's lengths, and Luhn's check digit.
#
# Of random digits with the right prefix and length, one string in ten passes Luhn's check. So a number counts only if it stands alone, or
# in the groups that cards print, and not in URLs, file names, decimal fractions or grids of numbers. Other cards, and the month in which a
# card expires, may stand beside it.

#: For each issuer: the first and the last prefix, and the lengths.
ISSUERS = [(*str(prefixes).partition("-")[::2], lengths) for prefixes, lengths in LISTS["card_issuers"].items()]
CARD = re.compile(
    r"(?<!\d)(?:\d{14,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3}(?!\d))?|\d{4}([ -])\d{6}\2\d{4,5})(?![\w\-/@%])", re.ASCII
)
CARD_BEFORE = re.compile(r"(?:[\w\-./=&#%+:@$]|\d[ ,])\Z", re.ASCII)
CARD_BEHIND = re.compile(r"[ .,]\d(?! ?\d ?/ ?\d\d)", re.ASCII)
FEWEST_DIFFERENT = 2  # digits
#: Longer numbers without groups are mostly identifiers of posts. Only UnionPay issues such card numbers.
LONGEST_PLAIN = 16
PLAIN_AND_LONG = "62"


def is_card_number(number: str) -> bool:
    """Whether the digits are a number that an issuer could have issued."""
    from stdnum import luhn

    known = any(first <= number[: len(first)] <= last and len(number) in lengths for first, last, lengths in ISSUERS)
    return known and len(set(number)) >= FEWEST_DIFFERENT and luhn.is_valid(number)


def find_cards(candidate: Candidate) -> Found:
    text, labels, spans = candidate.text, candidate.labels, []
    for match in CARD.finditer(text):  # those before it, too, as neighbours
        number = re.sub("[ -]", "", match[0])
        grouped, named = len(number) < len(match[0]), "card" in labels.get(match.start(), ())
        if is_card_number(number) and (grouped or named or len(number) <= LONGEST_PLAIN or number.startswith(PLAIN_AND_LONG)):
            spans.append(match.span())
    neighbours = {place for (_, past), (first, _) in pairwise(spans) if first - past == 1 for place in (past, first)}
    for first, past in spans:
        alone = first in neighbours or "card" in labels.get(first, ()) or not CARD_BEFORE.search(text, 0, first)
        if alone and (past in neighbours or not CARD_BEHIND.match(text, past)):
            yield first, past


# ---- Numbers that states give to persons and that check digits tell from other numbers. python-stdnum knows most of the checks.
#
# One random number in ten passes a check digit, so a bare number counts only after a word that names it ("PESEL: ..."). A number counts
# anywhere if its form is rare in other text, by letters, a date or separators, and its check holds; it must stand by itself.


def _weighted(text: str, weights: Sequence[int]) -> int:
    """Returns the sum of values times weights: of digits 0 to 9, of letters 10 to 35 (A to Z), of `<` 0, as ICAO 9303 and others count."""
    return sum((0 if sign == "<" else int(sign, 36)) * weights[place % len(weights)] for place, sign in enumerate(text))


def _passport(line: str) -> bool:
    """Whether it is the first line of a passport, or the second with all its check digits right (ICAO 9303-4)."""
    if not line[-1].isdigit():
        return "<<" in line
    parts = (line[:9], line[13:19], line[21:27], line[28:42], line[:10] + line[13:20] + line[21:43])
    checks = line[9] + line[19] + line[27] + line[42].replace("<", "0") + line[43]
    return all(_weighted(part, (7, 3, 1)) % 10 == int(check) for part, check in zip(parts, checks))


def _german_pension(number: str) -> bool:
    """Whether the day, the month and the check digit are right (VKVV, sections 2 and 4): digit sums of products, modulo 10."""
    digits = f"{number[:8]}{ord(number[8]) - 64:02}{number[9:11]}"
    total = sum(sum(divmod(int(digit) * weight, 10)) for digit, weight in zip(digits, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)))
    return total % 10 == int(number[11]) and 1 <= int(number[2:4]) <= 81 and 1 <= int(number[4:6]) <= 12


def _singapore(number: str) -> bool:
    value = _weighted(number[1:8], (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(number[0], 0)
    letters = "JZIHGFEDCBA" if number[0] in "ST" else "XWUTRQPNMLK" if number[0] in "FG" else "KLJNPQRTUWX"
    return letters[value % 11] == number[8]


def _taiwan(number: str) -> bool:
    area = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(number[0]) + 10
    return (area // 10 + area % 10 * 9 + _weighted(number[1:9], range(8, 0, -1)) + int(number[9])) % 10 == 0


#: Checks that python-stdnum does not have, of numbers in capitals without separators.
OWN_CHECKS: dict[str, Callable[[str], bool]] = {
    # HMRC, NIM39110: there is no check digit, but some first letters are not in use
    "nino": re.compile(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]").fullmatch,  # type: ignore[dict-item]
    "medicare": lambda number: _weighted(number[:8], (1, 3, 7, 9)) % 10 == int(number[8]),  # Australia's, METeOR 270101
    "korean_foreigner": lambda number: (13 - _weighted(number[:12], (2, 3, 4, 5, 6, 7, 8, 9)) % 11) % 10 == int(number[12]),
    "snils": lambda number: _weighted(number[:9], range(9, 0, -1)) % 101 % 100 == int(number[9:]),  # Russia's insurance number
    # a missing first letter counts 36
    "hong_kong": lambda number: ((36 * 9 if len(number) == 8 else 0) + _weighted(number, range(len(number), 0, -1))) % 11 == 0,
    "taiwan": _taiwan, "singapore": _singapore, "german_pension": _german_pension, "passport": _passport,
}  # fmt: skip


@dataclass(frozen=True)
class NationalId:
    """A kind of number. `form` matches behind the words that name it, `alone` anywhere."""

    check: str
    form: re.Pattern[str]
    alone: re.Pattern[str] | None

    def holds(self, number: str) -> bool:
        """Whether it is valid. stdnum raises LookupError for regions that its registers lack (in Chinese numbers): not valid."""
        number = re.sub(r"[ ./()]", "", number.upper())
        if self.check in OWN_CHECKS:
            return OWN_CHECKS[self.check](number.replace("-", ""))
        try:
            is_valid = import_module(f"stdnum.{self.check}").is_valid
            return bool(is_valid(number) or is_valid(number.replace("-", "")))
        except (LookupError, ValueError):
            return False


_ID_BEFORE = r"(?<![\w.\-/=&#%+@$,])(?<!\d[ :])(?<!::)"
_ID_BEHIND = r"(?![\w\-/@%]|[ .,]\d)"
IDS = [
    NationalId(
        row["check"],
        re.compile(f"(?:{row['form'].replace(' ', '[ ./-]{0,3}')})(?![\\w@%]|[-/.]\\w)", re.IGNORECASE | re.ASCII),
        re.compile(row["alone"], re.ASCII) if "alone" in row else None,
    )
    for row in LISTS["national_ids"]
]
_ANY = "|".join(re.sub(r"\\1", " ?", entry.alone.pattern) for entry in IDS if entry.alone)
ALONE = re.compile(f"{_ID_BEFORE}(?:{_ANY}){_ID_BEHIND}", re.ASCII)


def find_national_ids(candidate: Candidate) -> Found:
    text, past = candidate.text, 0
    for place, names in sorted(candidate.labels.items()):
        for entry in (IDS[row] for row in sorted(int(name) for name in names if name.isdigit())):
            match = entry.form.match(text, place)
            if match and place >= past and entry.holds(match[0]):
                past = match.end()
                yield match.span()
                break
    for match in ALONE.finditer(text, max(past, candidate.earliest)) if candidate.anywhere else ():
        other = {"other", "version"} & candidate.labels.get(match.start(), set())
        if not other and any(entry.alone and entry.alone.fullmatch(match[0]) and entry.holds(match[0]) for entry in IDS):
            yield match.span()


# ---- Public IPv6 addresses: those that begin with 2, as all that are in use do (RFC 9637 documents 3fff), with at least two groups.
#
# This excludes times (12:30:15), hardware addresses, ratios and C++ names (`std::add`).

_DOTTED = r"(?:\d{1,3}\.){3}\d{1,3}"
IPV6 = re.compile(
    rf"(?:(?<![\w.])2[0-9a-fA-F]{{3}}(?::{{1,2}}[0-9a-fA-F]{{1,4}}){{1,7}}(?::{{1,2}}{_DOTTED}|::)?"
    rf"|(?<!\w)(?:::ffff:|64:ff9b::){_DOTTED})(?![\w:]|\.\d)",
    re.ASCII,
)
GROUP_BEFORE = re.compile(r"(?:::|(?<![^\W_])[0-9a-fA-F]{1,4}:)\Z", re.ASCII)
FEWEST_GROUPS = 2


def find_ipv6(candidate: Candidate) -> Found:
    text = candidate.text
    for match in IPV6.finditer(text, candidate.earliest) if text.count(":") >= 2 else ():
        try:
            address = ipaddress.IPv6Address(match[0])
        except ipaddress.AddressValueError:
            continue
        several = len([group for group in match[0].split(":") if group]) >= FEWEST_GROUPS
        public = (address.ipv4_mapped or address).is_global and not address.is_multicast
        if several and public and not GROUP_BEFORE.search(text, 0, match.start()):
            yield match.span()


# ---- Public IPv4 addresses. Versions, sections and identifiers of objects look the same; what stands before and behind tells them apart.

_PART_BELOW_32 = r"(?:[12]?\d|3[01])"
#: Not those of private networks, nor those of four small parts (12.6.2.1), as versions and sections have; 0.02% of addresses have them.
IPV4 = re.compile(
    rf"(?<![\w.+])(?!10\.|127\.|0\.|255\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|{_PART_BELOW_32}(?:\.{_PART_BELOW_32}){{3}}(?!\d))"
    rf"{_DOTTED}(?![\w+])(?!\.\d)(?!-(?!\d{{1,3}}\.\d{{1,3}}\.))",
    re.ASCII,
)
NAME_BEFORE = re.compile(r"([\w.-]*\w)/\Z", re.ASCII)  # Chrome/91.0.44.124, but host.org/93.184.216.34
RANGE_BEFORE = re.compile(r"\.\d{1,3} ?-\Z")
#: "§ 93.184.216.34", "foo==4.52.117.3", "foo ~> 4.52.117.3"
VERSION_BEFORE = re.compile(r"(?:§|[=<>!~^]=|~>|\^| [<>~])\s?\Z")
PORT_BEHIND = re.compile(r":\d{2,5}(?!\d)|/\d{1,2}(?![\d/])")
HEADING_BEHIND, DOT_BEHIND = re.compile(r"\.? +[A-Z]"), re.compile(r"\. +[^\W\d_]")
SMALL = 32  # most parts of versions, sections and identifiers are below this
MOST_SMALL = 2  # directly behind a word with capitals, such as Skype
PRODUCT_BEFORE = re.compile(r"(?<![\w-])[a-z]{0,20}[A-Z][\w+#.-]{0,30}(?<!ed)(?<!ing) \(?\Z")


def is_public(address: str, text: str, first: int, past: int, names: set[str]) -> bool:
    """Whether a dotted number is somebody's address, given the text around it and what labels name it."""
    parts = address.split(".")
    small = sum(int(part) < SMALL for part in parts) + ("0" in parts[1:3])
    if any(len(part) > 1 and part[0] == "0" for part in parts) or address in LISTS["public_resolvers"]:
        return False
    try:
        number = ipaddress.IPv4Address(address)
    except ipaddress.AddressValueError:
        return False
    if not number.is_global or number.is_multicast or "version" in names:
        return False
    if VERSION_BEFORE.search(text, 0, first) and text[past : past + 1] != ">":  # <93.184.216.34>
        return False
    name = NAME_BEFORE.search(text, 0, first)
    if name and "." not in name[1] and "address" not in label_table().named.get(name[1].lower(), ()):
        return False
    if text[first - 1 : first] == "-" and not RANGE_BEFORE.search(text, 0, first):
        return False
    if "address" in names or text[max(0, first - 2) : first] == "//" or PORT_BEHIND.match(text, past):
        return True
    heading = (first == 0 or text[first - 1] == "\n") and small and (HEADING_BEHIND if small > 1 else DOT_BEHIND).match(text, past)
    return not heading and (small <= MOST_SMALL or not PRODUCT_BEFORE.search(text, 0, first))


def find_ipv4(candidate: Candidate) -> Found:
    text = candidate.text
    for match in IPV4.finditer(text, candidate.start) if text.count(".") >= 3 else ():
        if is_public(match[0], text, *match.span(), candidate.labels.get(match.start(), set())):
            yield match.span()


# ---- Phone numbers that the numbering plans know (the library phonenumbers), in the forms in which people write them.
#
# Many digit strings are a valid number in some country, so the form decides. It must have a `+` and a country code, or a word such as
# "Tel." before it, or a form that is rare elsewhere: (212) 555-0142, 212-555-0142, (030) 1234567, 01 23 45 67 89. Numbers in URLs, names,
# fractions and ranges do not count, nor numbers that the plans reserve for films and books.

#: The countries whose plans may have a national number after "Tel.", in this order.
REGIONS: list[str] = LISTS["phone_regions"]
_GAP = r"[ .\-/()]{0,4}"
_BEFORE = r"(?<![\w.,\-/=&#%+@$~])"
_BEHIND = r"(?!(?!x\d|ext)[a-z0-9_%@]|[A-Z](?![a-z-])|(?: \d{3})*[.,]\d|[:/\-]\d|[-/][A-Za-z])"
INTERNATIONAL = re.compile(rf"(?<![\w=&#%+@$)])(?:\(\+|\+\(?|(?<![.,:/-])00 ?(?=[1-9]))\d(?:{_GAP}\d){{6,14}}+", re.ASCII)
NATIONAL = re.compile(rf"\(?\+?\d(?:{_GAP}\d){{6,14}}+", re.ASCII)
BEHIND = re.compile(_BEHIND, re.ASCII)
NO_SIXTH = r"(?!\1\d| ?\+)"  # group of two digits, as in lotteries
#: Without separators, mobile numbers of China, Japan, Korea and Russia count where these scripts stand around.
AT_HOME = re.compile(r"[\u0400-\u04ff\u3040-\ud7ff]")
FORMS = tuple(
    (region, re.compile(rf"{_BEFORE}(?<!\d[ /])(?:{form}){_BEHIND}", re.ASCII))
    for region, form in (
        ("US", r"(?:\+?1[-. ])?(?:\(\d{3}\) ?\d{3}[-. ]\d{4}|\d{3}-\d{3}-\d{4}|\d{3}\.\d{3}\.\d{4})"),
        ("FR", r"0[1-9]([ .\-])\d\d\1\d\d\1\d\d\1\d\d" + NO_SIXTH),
        ("BR", r"(?:\d{2}|\(\d{2}\)) 9?\d{4}-\d{4}"),
        (
            "",
            r"8[ -]?\(\d{3}\)[ -]?\d{3}[ -]?\d\d[ -]?\d\d|8([ -])[3489]\d\d\1\d{3}[ -]\d\d[ -]?\d\d"
            r"|0(?:10|[789]0)([ .\-]?)\d{4}\2\d{4}|1[3-9]\d([ \-]?)\d{4}\3\d{4}|89\d{9}",
        ),
        ("", r"\(0\d{1,4}\)[ -]?\d{2,8}(?:[ -]?\d{1,4}){0,2}"),
        ("", r"0[89]00(?: ?[/-] ?| )\d{2,3}(?:[ -]?\d{2,4}){1,3}"),
        ("", r"(?:(?<=\n)|(?<=\n- ))0(?=[\d ]+[/ -]+\d)[1-9](?:[ /-]{0,3}\d){5,11}(?=\n)"),
    )
)
SIGN_BEFORE = re.compile(r"[☎☏✆📞📱📲🕿][\s:\ufe0f]{0,3}(?=[+(]?\d)")
#: After a number, these signs and words mean that another number follows.
NEXT = re.compile(rf"\s?(?:[/,;|&、，-]|{'|'.join(LISTS['and'].split())})\s?([(+]{{0,2}})")
LONGEST_NEXT = 40  # bytes
NORTH_AMERICA = re.compile(r"(?:\(\d{3}\) ?\d{3}[.-]|\d{3}([.-])\d{3}\1)\d{4}(?= )")
SLASH = re.compile(r" ?/ ?[(+]?\d")
_YEAR, _MONTH, _DAY = r"(?:1[3-9]|2[0-5])\d\d", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
_DEGREES = r"(?:1[0-7]\d|[1-9]?\d)\.\d"
#: Dates, years, opening hours, Brazilian postcodes, round quantities, coordinates and other fractions, and the bands of mobile phones.
NO_PHONE = re.compile(
    rf"\(?(?:{_DAY}\.{_MONTH}\.[ -]|(?:(?!00)\d{{4}}([-./])|{_YEAR}( )){_MONTH}(?:\1|\2){_DAY}"
    rf"|{_DAY}(\. |[-./]| {{1,3}}| [-/] ){_MONTH}\3{_YEAR}|{_MONTH}([-/ ]){_DAY}\4{_YEAR}"
    rf"|(?:{_DAY}([./-]){_MONTH}\5|{_MONTH}([./-]){_DAY}\6)\d\d(?![./-]?\d)|[012]\d\.[0-5]\d ?- ?[012]\d\.[0-5]\d(?![ .]?\d)"
    rf"|(?:19|20)\d\d\)?(?:[ ./-]{{1,3}}\(?(?:19|20)\d\d|[/-]\d\d(?=[ )]))"
    r"|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    r"|[012]\d(?:00|15|30|45)-[012]\d(?:00|15|30|45)|\d{5}-\d{3}|[1-9]\d{0,2}\.\d{5}(?![ .\-/]?\d)"
    r"|[1-9]\d{0,2}([ .])(?:\d{3}\7)*000(?![ .\-]?\d)|[1-9]\d{3,}000"
    rf"|\+?{_DEGREES}{{2,15}}[ ,;/]{{1,3}}[+-]?{_DEGREES}{{2,15}}"
    r"|[89][05]0[ /]+(?:[89][05]0|1[89]00)[ /\d]*)(?!\d)"
)
#: Behind a sign and without a label, these are coordinates. A telephone may be +49.30901820 (RFC 5733).
SIGNED = re.compile(rf"\(?\+{_DEGREES}{{3,8}}(?![.\d])")
#: The beginning of a number that may stand behind a label of any kind.
SOMEBODYS = re.compile(r"0[1-9]|[1-9]\d{1,3}([ .\-])\d{2,4}\1\d{2,4}")
LABEL_BEGINS = re.compile(r"[\n\t|,;•·(]|[.:!?] | - ")
PARTICLES = frozenset(LISTS["particles"].split())
FEWEST_UNNAMED = 9  # digits of such a number
EXTENSION = re.compile(r",? ?(?:x|ext|extension|доб|poste)\.?:? ?\d{1,6}(?!\d)", re.IGNORECASE)
#: Reserved for fiction: 555-0100 to 555-0199 in North America; Ofcom's drama numbers.
FICTION = re.compile(
    r"\+1\d{3}55501\d\d|\+44(?:7700900|1632960|2079460|1144960|1214960|1134960|1174960|1314960|1414960|1514960|1614960)\d{3}"
)
GROUP_END = re.compile(r"\d(?!\d)")
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


def _counts_up(number: str) -> bool:
    """Whether its groups count up, as in 01 02 03 04 05."""
    groups = [int(group) for group in re.findall(r"\d+", number)]
    return len(groups) > 2 and all(second - first == 1 for first, second in pairwise(groups))


def _phone_at(text: str, form: re.Pattern[str], place: int, regions: Sequence[str]) -> int:
    """Returns the end of the longest run of whole groups at a place that is a valid number in one of the regions; 0 if there is none."""
    match = form.match(text, place)
    if not match or NO_PHONE.match(text, place):
        return 0
    ends = [match.start() + group.end() for group in GROUP_END.finditer(match[0])]
    first_of_two = {end for end in ends if sum(map(str.isdigit, text[place:end])) >= FEWEST_DIGITS and SLASH.match(text, end)}
    if american := NORTH_AMERICA.match(text, place):
        first_of_two.add(american.end())
    for end in sorted(first_of_two) + ends[: -MOST_TRIMMED - 2 : -1]:
        number = text[place:end]
        if number.startswith("00"):
            number = "+" + number[2:]
        international = number.lstrip("(").startswith("+")
        whole = end in first_of_two or BEHIND.match(text, end)
        if whole and any(is_valid(number, region) for region in ((None,) if international else regions)):
            return 0 if _counts_up(number) else end
    return 0


def _printed(number: str, regions: Sequence[str], fewest_groups: int) -> bool:
    """Whether a national number has groups and begins with 0, or has its plan's groups: 934 12 34 56, not 934 123 456 as quantities."""
    import phonenumbers

    groups = re.findall(r"\d+", number)
    if sum(map(len, groups)) < FEWEST_UNNAMED or len(groups) < fewest_groups:
        return False
    if number[0] in "0(":
        return True
    if len(groups) < 3 or {len(group) for group in groups[1:]} in ({3}, {3, 4}):  # as quantities and catalogue numbers
        return False
    for region in regions:
        if phonenumbers.ndd_prefix_for_region(region, True) != "0" and is_valid(number, region):
            printed = phonenumbers.format_number(phonenumbers.parse(number, region), phonenumbers.PhoneNumberFormat.NATIONAL)
            if re.findall(r"\d+", printed) == groups:
                return True
    return False


def somebodys(candidate: Candidate) -> int:
    """Returns 2 if a name stands directly before a candidate ("Anna Berg, ..."), 1 if a label that names no thing does ("Rectory: ...")."""
    text, place = candidate.text, candidate.start
    if not SOMEBODYS.match(text, place):
        return 0
    table = label_table()
    before = text[max(0, place - LABEL_CONTEXT) : place].rstrip("(")
    label = before.rstrip(" \t\n*_|:,-([\"'")
    signs = before[len(label) :]
    words = MARKED_WORD.findall(LABEL_BEGINS.split(label)[-1])
    if not label[-1:].isalpha() or (not signs and label[-1] < EAST_ASIA) or signs.count("\n") > 1 or not 0 < len(words) <= 4:
        return 0
    name = len(words) > 1 and words[-1][1:].islower() and all(word[0].isupper() or word in PARTICLES for word in words)
    if not (label[-1] >= EAST_ASIA or SURE.search(signs) or (name and text[place] == "0")):
        return 0
    return 0 if any(word in table.named or word in table.things for word in map(_lower, words)) else 1 + name


def find_phones(candidate: Candidate) -> Found:
    text, start, end, regions = candidate.text, candidate.start, candidate.end, candidate.regions
    labels = {place: names for place, names in candidate.labels.items() if "other" not in names}
    places = {place for place, names in labels.items() if {"phone", "desk"} & names or ("letter" in names and text[place] in "(+0")}
    first = len(text[:start].rstrip("(+"))
    if candidate.follows:
        places.add(first)
    if candidate.anywhere:
        places |= {match.end() for match in SIGN_BEFORE.finditer(text)}
    found = []
    for place in sorted(places):
        while past := _phone_at(text, NATIONAL, place, regions):
            found.append((place, past))
            following = NEXT.match(text, past, end)
            if not following:
                break
            place = following.end() - len(following[1])
    at = max((past for _, past in found), default=max(0, start - 2))
    for match in INTERNATIONAL.finditer(text, at, end) if candidate.anywhere else ():
        doubtful = SIGNED.match(match[0]) or (match[0][0] == "0" and "other" in candidate.labels.get(match.start(), ()))
        if not doubtful and (past := _phone_at(text, INTERNATIONAL, match.start(), ())):
            found.append((match.start(), past))
    for region, form in FORMS if candidate.anywhere else ():
        for match in form.finditer(text, at) if not region or region in regions else ():
            other = "other" in candidate.labels.get(match.start(), ())  # "Référence 04 78 12 34 56"
            stray = match[0].isdigit() and not AT_HOME.search(text)
            plausible = not (other or stray or _counts_up(match[0]) or NO_PHONE.match(match[0]))
            if plausible and any(is_valid(match[0], here) for here in ([region] if region else regions)):
                found.append(match.span())
    if not found and not candidate.labels.get(first) and (trust := somebodys(candidate)):
        past = _phone_at(text, NATIONAL, first, regions)
        found += [(first, past)] if past and _printed(text[first:past], regions, 3 - trust) else []
    for first, past in sorted(found):
        number, extension = text[first:past], EXTENSION.match(text, past)
        yield first + (number[0] == "(" and number.count("(") > number.count(")")), extension.end() if extension else past


# ---- The kinds, in order of priority: a find of an earlier kind removes the overlapping finds of later kinds


@dataclass(frozen=True)
class Kind:
    """A kind of personal data. No kind ever finds a `placeholder`."""

    name: str  # name of the option
    column: str
    placeholder: str
    description: str
    default: bool = True  # whether it is looked for if the recipe names no kinds


KINDS = (
    Kind("secret", "pii_secrets", "<SECRET>", "a key, token or password that its format gives away"),
    Kind("email", "pii_emails", "email@example.com", "an email address"),
    Kind("hidden_email", "pii_hidden_emails", "email@example.com", "an email address whose signs are words (name at host dot org)", False),
    Kind("iban", "pii_ibans", "<IBAN>", "an international bank account number"),
    Kind("credit_card", "pii_credit_cards", "<CREDIT_CARD>", "a payment card's number"),
    Kind("national_id", "pii_national_ids", "<NATIONAL_ID>", f"a number that a state gave a person ({len(IDS)} kinds)"),
    Kind("ipv6", "pii_ipv6", "2001:db8::1", "a public IPv6 address"),
    Kind("ipv4", "pii_ipv4", "192.0.2.1", "a public IPv4 address"),
    Kind("phone", "pii_phones", "+1-202-555-0100", "a phone number"),
)
#: The kinds that the scan for numbers finds.
FINDERS: dict[str, Callable[[Candidate], Found]] = {
    "iban": find_ibans, "credit_card": find_cards, "national_id": find_national_ids, "ipv6": find_ipv6, "ipv4": find_ipv4,
    "phone": find_phones,
}  # fmt: skip
#: Something that one of the finders could find without a label: a quick test that most candidates fail.
_ANY_FORMS = [form.pattern for form in (ALONE, CARD, IPV6, IPV4, INTERNATIONAL, SIGN_BEFORE, *(form for _, form in FORMS))]
ANY = re.compile(
    r"(?<![A-Za-z0-9_])(?:[A-Za-z]{2}\d\d(?:[ -]?[A-Za-z0-9]){11}|(?=[0-9A-Z(+:☎-🕿])(?:"
    + "|".join(re.sub(r"\\[123]", "[ .-]?", form.replace(NO_SIXTH, "")) for form in _ANY_FORMS)
    + "))",
    re.ASCII,
)
NUMBER_BEFORE, NUMBER_BEHIND = 60, 48


def find_numbers(
    document: bytes, start: int, end: int, last: tuple[str, int], kinds: Sequence[str], regions: Sequence[str]
) -> Iterator[tuple[str, int, int]]:
    """Yields the finds of all kinds of numbers in a candidate, in order."""
    candidate = Candidate(document, start, end, NUMBER_BEFORE, NUMBER_BEHIND)
    candidate.anywhere = ANY.search(candidate.text, candidate.earliest) is not None
    near = last[0] == "phone" and start - last[1] <= LONGEST_NEXT
    candidate.follows = near and NEXT.fullmatch(document[last[1] : start].decode()) is not None
    if not (candidate.anywhere or candidate.follows or names_a_number(candidate) or somebodys(candidate)):
        return
    candidate.labels, candidate.regions = labels_in(candidate), regions
    found = []
    for kind in kinds if candidate.anywhere else [kind for kind in kinds if kind in ("national_id", "phone")]:
        for first, past in list(FINDERS[kind](candidate)):
            if first < candidate.end:  # later ones belong to the next candidate
                found.append((kind, candidate.offset(first), candidate.offset(past)))
                text = candidate.text
                candidate.text = f"{text[:first]}<{'x' * (past - first - 2)}>{text[past:]}"  # as if its placeholder stood there
    yield from sorted(found, key=lambda find: find[1])


# ---- The step

MOST_PASSES = 5  # two or three are enough for nearly all texts


class _Options(Config):
    kinds: tuple[str, ...] = Field(
        tuple(kind.name for kind in KINDS if kind.default), description="The kinds to find; other kinds are neither counted nor replaced."
    )
    phone_regions: tuple[str, ...] | None = Field(
        None, description=f"Countries (ISO 3166) whose national phone numbers are looked for; by default {len(REGIONS)}."
    )
    most: dict[str, int] = Field(
        {}, description="A document fails with more finds of a kind than this: `{email: 20}` makes the rule `pii_emails`. None by default."
    )

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        names = [kind.name for kind in KINDS]
        for name in self.kinds:
            if name not in names:
                raise ValueError(f"kinds: no such kind: {name!r}{instead_of(name, names)}")
        for name, limit in self.most.items():
            if name not in self.kinds:
                raise ValueError(f"most.{name}: no such kind{instead_of(name, self.kinds)}")
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
    __doc__="Personal data and secrets: how many of each kind, and a placeholder in place of each.",
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
        return [kind for kind in KINDS if kind.name in self.config.kinds]

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {kind.column: pa.int64() for kind in self.kinds}

    @property
    def rules(self) -> tuple[Rule, ...]:
        limits = self.config.most
        return tuple(Rule(kind.column, kind.column, ">", limits[kind.name]) for kind in self.kinds if kind.name in limits)

    @property
    def placeholders(self) -> dict[str, str | None]:
        """The placeholder of each column; None for a kind that is only counted."""
        return {kind.column: getattr(self.config, kind.name) for kind in self.kinds}

    @cached_property
    def replaced_for_good(self) -> set[str]:
        """The columns of the kinds whose placeholders are no finds themselves."""
        given = {column: text for column, text in self.placeholders.items() if text is not None}
        texts = TextColumn(pa.array(list(given.values()), pa.large_string()))
        found = sum((counts(texts, spans) for spans in self.find(texts)), np.zeros(len(given), np.int64))
        return {column for column, count in zip(given, found) if not count}

    def find(self, texts: TextColumn) -> list[Spans]:
        """Returns the finds of each kind. No two finds overlap."""
        names = [kind.name for kind in self.kinds]
        regions = REGIONS if self.config.phone_regions is None else self.config.phone_regions
        found: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
        of_numbers = partial(find_numbers, kinds=[name for name in names if name in FINDERS], regions=regions)
        for kinds, wanted, check in (
            ({"secret"}, PREFIXES, find_secrets),
            ({"email"}, ADDRESSES, find_emails),
            (FINDERS.keys(), NUMBERS, of_numbers),
        ):
            for kind, start, end in texts.finds(wanted, check) if kinds & set(names) else ():
                found[kind].append((start, end))
        for begin, end in pairwise(texts.offsets.tolist()) if "hidden_email" in names else ():
            spans = find_hidden_emails(texts.data[begin:end].tobytes())
            found["hidden_email"] += ((begin + first, begin + past) for first, past in spans)
        return without_overlaps([np.array(spans, np.int64).reshape(-1, 2) for spans in found.values()])

    def measure(self, batch: DocumentBatch) -> StepOutput:
        """Counts and replaces finds. A find counts even if the recipe does not replace it.

        A placeholder can change what its neighbours are, so documents with finds are read again until nothing is found: a second pass of
        the step changes no text.
        """
        totals = {column: np.zeros(len(batch.text), np.int64) for column in self.columns}
        text, rows = batch.text, np.arange(len(batch.text))
        for passes in range(MOST_PASSES):
            part = text.take(rows) if passes else text
            texts = TextColumn(part)
            finds = [(column, spans, placeholder) for (column, placeholder), spans in zip(self.placeholders.items(), self.find(texts))]
            finds = [find for find in finds if not passes or find[0] in self.replaced_for_good]
            again = np.zeros(len(rows), np.bool_)
            for column, spans, _ in finds:
                found = counts(texts, spans)
                totals[column][rows] += found
                again |= (found > 0) & (column in self.replaced_for_good)
            part = replaced(part, texts, [(spans, placeholder) for _, spans, placeholder in finds if placeholder is not None])
            text = pc.replace_with_mask(text, pa.array(np.isin(np.arange(len(text)), rows)), part) if passes else part
            rows = rows[again]
            if not len(rows):
                break
        return StepOutput(totals, text)
