"""Numbers that states give to persons, where check digits can tell them from other numbers. python-stdnum knows the checks.

A check digit lets one random number in ten pass, so a bare number counts only after a word that names it ("PESEL: ..."). Numbers that
are rarer by chance than about one in a thousand of their form, as they have letters, a date, fixed parts or two check digits, count
wherever they stand by themselves. The US social security number has no check digit and is not looked for.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module

import numpy as np

from corpusmill.filters.pii.spans import Spans, Texts


@dataclass(frozen=True)
class NationalId:
    module: str  # of stdnum
    form: str
    words: str = ""  # one of these must stand shortly before; none for numbers that tell by themselves


_S = r"[ -]?"
IDS = (
    # letters, or much structure
    NationalId("es.dni", r"\d{8}-?[A-HJ-NP-TV-Z]"),
    NationalId("es.nie", r"[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]"),
    NationalId("it.codicefiscale", r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]"),
    NationalId("mx.curp", r"[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z0-9]\d"),
    NationalId("fi.hetu", r"[0-3]\d[01]\d{3}[-A]\d{3}[0-9A-Y]"),
    NationalId("fr.nir", r"[12]( ?)\d{2}\1(?:0[1-9]|1[0-2])\1\d{2}\1\d{3}\1\d{3}\1\d{2}"),
    NationalId("fr.nir", r"[12]\d{2}(?:0[1-9]|1[0-2])2[AB]\d{8}"),  # Corsica, which the scans see without spaces only
    NationalId("cn.ric", r"[1-9]\d{5}(?:19|20)\d{2}[01]\d[0-3]\d{4}[0-9X]"),
    NationalId("br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    NationalId("kr.rrn", r"\d{2}[01]\d[0-3]\d-[0-9]\d{6}"),
    NationalId("ch.ssn", r"756\.\d{4}\.\d{4}\.\d{2}"),
    NationalId("be.nn", r"\d{2}\.[0-5]\d\.[0-3]\d-\d{3}\.\d{2}"),
    NationalId("no.fodselsnummer", r"[0-7]\d[0-9]\d{3} \d{5}"),
    NationalId("th.pin", r"\d-\d{4}-\d{5}-\d{2}-\d"),
    NationalId("se.personnummer", r"(?:19|20)\d{2}[01]\d[0-3]\d-\d{4}"),
    # a check digit alone
    NationalId("cl.rut", r"\d{1,2}\.?\d{3}\.?\d{3}-[0-9K]", "rut|run|r\\.u\\.t\\.|r\\.u\\.n\\."),
    NationalId("nl.bsn", rf"\d{{4}}[ .]?\d{{2}}[ .]?\d{{3}}|\d{{3}}{_S}\d{{3}}{_S}\d{{3}}", "bsn|burgerservicenummer|sofi(?:-?nummer)?"),
    NationalId("pl.pesel", r"\d{11}", "pesel"),
    NationalId("br.cpf", r"\d{9}-?\d{2}", "cpf"),
    NationalId(
        "de.idnr", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", r"steuer-?id(?:entifikationsnummer)?|steuerliche identifikationsnummer|idnr\.?|tax id"
    ),
    NationalId("in_.aadhaar", rf"[2-9]\d{{3}}{_S}\d{{4}}{_S}\d{{4}}", "aadhaar|aadhar|adhaar|uidai|uid|आधार"),
    NationalId("gb.nhs", rf"\d{{3}}{_S}\d{{3}}{_S}\d{{4}}", "nhs|nhs number|nhs no\\.?"),
    NationalId("se.personnummer", r"(?:19|20)?\d{6}[-+]?\d{4}", r"personnummer|pers\.? ?nr\.?|personal identity number|pnr"),
    NationalId("no.fodselsnummer", r"\d{6} ?\d{5}", "fødselsnummer|fodselsnummer|personnummer|fnr"),
    NationalId("fi.hetu", r"\d{6}[-A-FU-Y]\d{3}[0-9A-Y]", "henkilötunnus|hetu|personbeteckning"),
    NationalId("tr.tckimlik", r"[1-9]\d{10}", "t\\.?c\\.? ?kimlik(?: ?n(?:o|umaras[ıi]))?|tckn|kimlik no"),
    NationalId(
        "be.nn", r"\d{2}[ .]?\d{2}[ .]?\d{2}[ -]?\d{3}[ .]?\d{2}", "rijksregisternummer|numéro national|registre national|nn|niss|insz"
    ),
    NationalId("za.idnr", r"\d{6} ?\d{4} ?\d{3}", "id|id number|identity number|id no\\.?"),
    NationalId("ee.ik", r"[1-6]\d{10}", "isikukood|isikukoodi?ga|personal code"),
    NationalId("lt.asmens", r"[1-6]\d{10}", "asmens kodas|a\\. ?k\\.|personal code"),
    NationalId("cz.rc", r"\d{6}/?\d{4}", "rodné číslo|rodného čísla|r\\. ?č\\.|rč|rc|birth number"),
    NationalId("ro.cnp", r"[1-8]\d{12}", "cnp|cod numeric personal"),
    NationalId("bg.egn", r"\d{10}", "егн|egn"),
    NationalId("hr.oib", r"\d{11}", "oib"),
    NationalId("pt.nif", r"[1-3]\d{2} ?\d{3} ?\d{3}", "nif|contribuinte|n\\.?i\\.?f\\.?"),
    NationalId("ie.pps", r"\d{7}[A-W][ABHW]?", "pps|ppsn|pps number|pps no\\.?"),
    NationalId("at.vnr", r"[1-9]\d{3} ?\d{6}", "svnr\\.?|sv-nr\\.?|sv-nummer|sozialversicherungsnummer|versicherungsnummer"),
    NationalId("ch.ssn", r"756\d{10}", "ahv|avs|avs-nr|ahv-n(?:umme)?r\\.?"),
    NationalId("is_.kennitala", r"\d{6}-?\d{4}", "kennitala|kt\\.?"),
    NationalId("il.idnr", r"\d{8}-?\d", "ת\\.?ז\\.?|תעודת זהות|מספר זהות|israeli id"),
    NationalId("ca.sin", rf"\d{{3}}{_S}\d{{3}}{_S}\d{{3}}", "sin|social insurance number|numéro d'assurance sociale|nas"),
    NationalId("au.tfn", r"\d{3} ?\d{3} ?\d{3}", "tfn|tax file number"),
    NationalId("ua.rntrc", r"\d{10}", "рнокпп|іпн|ідентифікаційний код|ідентифікаційний номер"),
    NationalId("gr.amka", r"[0-3]\d[01]\d{8}", "αμκα|α\\.μ\\.κ\\.α\\.|amka"),
    NationalId("jp.in_", rf"\d{{4}}{_S}\d{{4}}{_S}\d{{4}}", "マイナンバー|個人番号|my number"),
    NationalId("ru.inn", r"\d{12}", "инн"),
    NationalId("ar.cuit", r"2[0347]-?\d{8}-?\d", "cuil|cuit"),
    NationalId("ec.ci", r"\d{9}-?\d", "cédula|cedula|c\\.i\\."),
    NationalId("si.emso", r"\d{13}", "emšo|emso|jmbg|јмбг"),
    NationalId("th.pin", r"\d{13}", "เลขประจำตัวประชาชน|บัตรประชาชน"),
)
CONTEXT = 64  # bytes before a number in which the word may stand
_BEFORE = r"(?<![\w.\-/=&#%+:@$,])" r"(?<!\d )"
_AFTER = r"(?![\w\-/@%]|[ .,]\d)"
#: Between the word and the number.
_BRIDGE = (
    r"[\s.:#=\"'()\[\]*|\-–—№：]*(?:(?:number|no|nr|nº|n°|num(?:éro|ero)?|is|ist|er|je|to|kód|kod)\b[\s.:#=\"'()\[\]*|\-–—№：]*){0,2}$"
)


def _check(module: str) -> Callable[[bytes], bool]:
    """stdnum's check. It raises KeyError for regions that its registers lack, as in Chinese numbers: those are not valid."""
    is_valid: Callable[[str], bool] = import_module(f"stdnum.{module}").is_valid

    def check(number: bytes) -> bool:
        try:
            return is_valid(number.decode())
        except (LookupError, ValueError):
            return False

    return check


@cache
def _with_words() -> tuple[re.Pattern[str], tuple[tuple[re.Pattern[str], re.Pattern[bytes], Callable[[bytes], bool]], ...]]:
    """What finds any of the words at the end of a text, and for each kind of number its words, form and check."""
    named = [entry for entry in IDS if entry.words]
    either = "|".join(f"(?:{entry.words})" for entry in named)
    table = tuple(
        (
            re.compile(rf"(?<!\w)(?:{entry.words}){_BRIDGE}", re.IGNORECASE),
            re.compile(rf"(?:{entry.form}){_AFTER}".encode()),
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
    return re.compile(rf"{_BEFORE}(?:{forms}){_AFTER}".encode()), table


def check(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    before = document[max(0, start - CONTEXT) : start].decode(errors="ignore")
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


def find(texts: Texts) -> Spans:
    candidates = np.concatenate([texts.numbers, texts.codes])
    return texts.checked(candidates[np.lexsort((-candidates[:, 1], candidates[:, 0]))], check)
