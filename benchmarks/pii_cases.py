"""Texts with and without personal data, by kind, from the tables of `pii_cases.yaml` and libraries' example numbers.

    python benchmarks/pii_cases.py CASES.jsonl

Numbers are valid: phones by libphonenumber, other numbers by the check digits of python-stdnum, of ICAO 9303, and of the authorities whose
numbers python-stdnum does not know. The same cases come each time. `pip install corpusmill[peers]` brings rstr.
"""

import argparse
import importlib
import ipaddress
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import phonenumbers
import rstr
import yaml
from phonenumbers import PhoneNumberFormat, PhoneNumberType
from stdnum import iban, luhn, numdb
from stdnum.iso7064 import mod_97_10

TABLES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("pii_cases.yaml").read_text("utf-8"))
RANDOM = random.Random(28)
GENERATOR = rstr.Rstr(RANDOM)
REPEATED = re.compile(r"(\[[^]]+\])\{(\d+),?(\d*)\}")
NO_BREAK_SPACE = "\xa0"
FRAMES = ["{label}: {}", "{label} {}", "{label}:{}", "{label}:\xa0{}", "({label}: {})", "- {label}: {}.", "**{label}:** {}", "{label}\t{}"]
FRAMES += ['"{label}": "{}",', "Anna Berg, {label} {}, room 4", "| {label} | {} |", "[{label}: {}]", "{label} - {}"]
IBAN_SIGNS = {"n": "[0-9]", "a": "[A-Z]", "c": "[0-9A-Z]"}
WIDE_FRAMES = ["{label}：{}", "{label}{}", "（{label}：{}）", "{label}: {}", "◆{label} {}"]


@dataclass
class Case:
    kind: str
    group: str
    text: str
    spans: list[tuple[int, int]]  # of the personal data, in characters; none in a text without


def filled(kind: str, group: str, frame: str, datum: str | Callable[[], str]) -> Case:
    """Returns a text: the frame with a datum, or with what the function makes each time, in place of each `{}`."""
    first, *rest = frame.split("{}")
    text, spans = first, []
    for piece in rest:
        found = datum if isinstance(datum, str) else datum()
        spans.append((len(text), len(text) + len(found)))
        text += found + piece
    return Case(kind, group, text, spans)


def labelled(label: str, frames: list[str]) -> str:
    """Returns a frame with the label in it; a label that is a sentence is itself a frame."""
    return label if "{}" in label else RANDOM.choice(frames).replace("{label}", label)


def draw(pattern: str) -> str:
    """Returns a text that matches. rstr repeats at most 100 times, so more is written as several repeats."""

    def parts(repeat: re.Match[str]) -> str:
        hundreds, low = divmod(int(repeat[2]), 100)
        return f"{repeat[1]}{{100}}" * hundreds + f"{repeat[1]}{{{low},{int(repeat[3] or repeat[2]) - 100 * hundreds}}}"

    return GENERATOR.xeger(REPEATED.sub(parts, pattern))


def drawn(pattern: str, valid: Callable[[str], bool]) -> str:
    while True:
        text = draw(pattern)
        if valid(text):
            return text


# Phones


def phone(region: str) -> phonenumbers.PhoneNumber:
    """Returns libphonenumber's example number with other last digits. 555 is North America's code of fictional numbers."""
    kind = RANDOM.choice([PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE])
    example = phonenumbers.example_number_for_type(region, kind)
    digits = phonenumbers.national_significant_number(example)
    while True:
        last = "".join(RANDOM.choice("0123456789") for _ in range(min(7, len(digits) - 2)))
        number = phonenumbers.parse(f"+{example.country_code}{digits[: -len(last)]}{last}")
        if phonenumbers.is_valid_number_for_region(number, region) and not (example.country_code == 1 and last.startswith("555")):
            return number


def writings(number: phonenumbers.PhoneNumber) -> list[str]:
    """Returns common ways to write a number: for the same country, then for all."""
    here = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
    plain = re.sub(r"\D+", " ", here).strip()
    everywhere = phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL)
    area, _, rest = plain.partition(" ")
    national = [here, here, plain, *(plain.replace(" ", sign) for sign in ("-", ".", NO_BREAK_SPACE))]
    if plain.startswith("0") and area != "0":
        national += [f"({area}) {rest}", f"{area}-{rest}"]
        if str(number.country_code)[0] in "34":  # Europe
            national += [f"{area}/{rest.replace(' ', '')}", f"{area} / {rest}"]
    if number.country_code != 1:
        national.append(plain.replace(" ", ""))
    world = [everywhere, everywhere, phonenumbers.format_number(number, PhoneNumberFormat.E164), "00" + everywhere[1:]]
    world += [re.sub("[ -]+", sign, everywhere) for sign in ("-", ".", NO_BREAK_SPACE)]
    if plain.startswith("0") and number.country_code in (31, 32, 41, 43, 44, 46, 49):
        world.append(everywhere.replace(" ", " (0)", 1))
    return national + world


def phones() -> Iterator[Case]:
    for language, table in TABLES["phones"].items():
        frames = WIDE_FRAMES if "wide" in table else FRAMES

        def any_phone(regions: list[str] = table["regions"]) -> str:
            return RANDOM.choice(writings(phone(RANDOM.choice(regions))))

        for label in table["labels"] * 3:
            yield filled("phone", language, labelled(label, frames), any_phone)
        for _ in range(2):
            number = phone(RANDOM.choice(table["regions"]))
            text = RANDOM.choice([text for text in writings(number) if text.startswith("+")])
            for frame in ("{}", "Anna Berg · {} · Berlin", "({})", "**{}**", "[{}]", "{}, 24h", '"{}"'):
                yield filled("phone", "international", frame, text)
        labels = [label for label in table["labels"] if "{}" not in label]
        for separator in (", ", " / ", "; ", f" {table['or']} ", "/" if "wide" in table else ", "):
            label = RANDOM.choice(labels)
            numbers = separator.join(["{}"] * RANDOM.choice([2, 2, 3]))
            region, form = table["regions"][0], RANDOM.choice([0, 2, 3, 4])
            alike = partial(lambda region, form: writings(phone(region))[form], region, form)
            yield filled("phone", "several in a row", f"{label}: {numbers}", alike)
        if "digits" in table:
            signs = str.maketrans("0123456789-", table["digits"] + ("－" if "wide" in table else "-"))
            for label in table["labels"] * 2:
                frame = labelled(label, frames)
                yield filled("phone", "digits of other scripts", frame, lambda: any_phone().translate(signs))  # noqa: B023


# Numbers of persons


def any_number(number: str) -> bool:
    """The numbers have no check digits: HM Revenue & Customs, NIM39110."""
    return True


def weighted(digits: str, weights: str) -> int:
    return sum(int(digit) * int(weight) for digit, weight in zip(digits, weights))


def kr_frn(number: str) -> bool:
    """The check digit of foreigners: two more than that of residents."""
    return (13 - weighted(number, "234567892345") % 11) % 10 == int(number[12])


def de_rvnr(number: str) -> bool:
    """Section 2 of the Verordnung über die Versicherungsnummer (VKVV): the letter counts as its place in the alphabet."""
    digits = f"{number[:8]}{ord(number[8]) - 64:02}{number[9:]}"
    return sum(sum(divmod(int(d) * int(w), 10)) for d, w in zip(digits, "212571212121")) % 10 == int(number[-1])


def au_medicare(number: str) -> bool:
    """METeOR 270101, the ninth digit; the tenth counts cards."""
    return weighted(number, "13791379") % 10 == int(number[8])


def ru_snils(number: str) -> bool:
    """The pension fund's: the last two digits."""
    return weighted(number, "987654321") % 101 % 100 == int(number[9:])


def sg_nric(number: str) -> bool:
    total = weighted(number[1:8], "2765432") + 4 * (number[0] in "TG")
    return ("JZIHGFEDCBA" if number[0] in "ST" else "XWUTRQPNMLK")[total % 11] == number[8]


def hk_id(number: str) -> bool:
    values = [36, *(int(sign, 36) for sign in number[:7]), 10 if number[7] == "A" else int(number[7])]
    return sum(value * weight for value, weight in zip(values, range(9, 0, -1))) % 11 == 0


def validity(name: str) -> Callable[[str], bool]:
    return importlib.import_module(f"stdnum.{name}").is_valid if "." in name else globals()[name]


def written(number: str, form: str) -> str:
    """Returns the number in the form's groups, which are counted from the end."""
    signs = [sign for sign in number if sign.isalnum()]
    pieces = []
    for sign in reversed(form):
        if not signs:
            break
        pieces.append(signs.pop() if sign == "#" else sign)
    return "".join(reversed(pieces))


def national_ids() -> Iterator[Case]:
    for name, table in TABLES["national_ids"].items():
        valid = validity(table.get("check", name))
        numbers = [drawn(table["pattern"], valid) for _ in range(8)]
        frames = WIDE_FRAMES if "wide" in table else FRAMES
        for place in range(32):
            number, form = RANDOM.choice(numbers), RANDOM.choice([*table["forms"], ""])
            text = written(number, form) if form else number
            if "lower" in table and RANDOM.random() < 0.2:
                text = text.lower()
            if RANDOM.random() < 0.2:
                text = text.replace(" ", NO_BREAK_SPACE)
            frame = labelled(table["labels"][place % len(table["labels"])], frames)
            yield filled("national_id", name, frame, text)


def mrz(text: str) -> str:
    """Returns the check digit of ICAO 9303, part 3, section 4.9."""
    return str(sum((0 if sign == "<" else int(sign, 36)) * weight for sign, weight in zip(text, [7, 3, 1] * 20)) % 10)


def passports() -> Iterator[Case]:
    """Yields the two lines of passports, with the name and with the number: ICAO 9303, part 4, section 4.2.2."""
    for country in TABLES["passports"] * 2:
        number, birth = draw("[CFGHJKLMNPRTVWXYZ][0-9CFGHJK]{7,8}").ljust(9, "<"), draw("[5-9][0-9](0[1-9]|1[0-2])(1[0-9]|2[0-8])")
        expiry, optional = draw("3[0-5](0[1-9]|1[0-2])(1[0-9]|2[0-8])"), draw("(|[0-9]{8})").ljust(14, "<")
        parts = [number + mrz(number), birth + mrz(birth), expiry + mrz(expiry), optional + (mrz(optional) if optional[0] != "<" else "<")]
        line = f"{parts[0]}{country}{parts[1]}{RANDOM.choice('MF<')}{parts[2]}{parts[3]}{mrz(''.join(parts))}"
        names = f"P<{country}BERG<<ANNA<MARIA".ljust(44, "<")
        for frame in ("{}\n{}", "Passport:\n{}\n{}\nissued in 2021"):
            lines = iter([names, line])
            yield filled("national_id", "passport, ICAO 9303", frame, lambda lines=lines: next(lines))
        yield filled("national_id", "passport, ICAO 9303", "MRZ: {}", line)


# Payment


def card_forms(number: str) -> list[str]:
    groups = [number[:4], number[4:10], number[10:]] if len(number) in (14, 15) else re.findall(".{1,4}", number)
    return [separator.join(groups) for separator in (" ", "-", NO_BREAK_SPACE, "")]


def cards() -> Iterator[Case]:
    for network, patterns in TABLES["cards"].items():
        for place, frame in enumerate(TABLES["card_frames"] * 2):
            number = drawn(patterns[place % len(patterns)], luhn.is_valid)
            yield filled("credit_card", network, frame, lambda number=number: RANDOM.choice(card_forms(number)))
        for separator in (", ", " ", " or ", "\n"):
            every = iter(card_forms(drawn(patterns[0], luhn.is_valid)) * 2)
            yield filled("credit_card", "forms in a row", separator.join(["{}"] * 3), lambda every=every: next(every))


def iban_of(country: str, bban: str) -> str:
    """Returns an account number by the registry's form of it, such as `4!a6!n8!n`."""
    form = re.sub(r"(\d+)!(.)", lambda part: f"{IBAN_SIGNS[part[2]]}{{{part[1]}}}", bban)
    while True:
        account = draw(form)
        number = country + mod_97_10.calc_check_digits(account + country) + account
        if iban.is_valid(number):  # some countries have check digits of their own
            return number


def ibans() -> Iterator[Case]:
    frames, registry = TABLES["iban_frames"], numdb.get("iban")
    forms = {country: registry.info(country)[0][1].get("bban") for country in sorted(phonenumbers.SUPPORTED_REGIONS)}
    for place, (country, bban) in enumerate([(country, bban) for country, bban in forms.items() if bban] * 3):
        number = iban_of(country, bban)
        frame = frames[place % len(frames)]
        printed = " ".join(re.findall(".{1,4}", number))
        form = RANDOM.choice([number, printed, printed, printed.replace(" ", NO_BREAK_SPACE)])
        if "iban" in frame.lower() and RANDOM.random() < 0.15:
            form = form.lower()
        yield filled("iban", country, frame, form)


# The net


def emails() -> Iterator[Case]:
    table = TABLES["emails"]
    for domain in [*table["domains"], *table["international"]]:
        names = [*table["locals"], *([table["international"][domain]] * 5 if domain in table["international"] else [])]

        def address(domain: str = domain, names: list[str] = names) -> str:
            name = RANDOM.choice(names)
            return f"{name}@{domain if name.isascii() or RANDOM.random() < 0.5 else RANDOM.choice(table['domains'])}"

        for frame in table["frames"]:
            found = address()
            if ("は{}" in frame and not found.isascii()) or ("'" in found and "'" in frame):  # would be another local part
                found = f"info@{domain}"
            yield filled("email", "ASCII" if found.isascii() and "xn--" not in found else "international", frame, found)
        for separator in table["separators"]:
            frame = separator.join(["{}"] * RANDOM.choice([2, 2, 3]))
            yield filled("email", "neighbours", f"<{frame}>" if separator == "><" else frame, address)


def ipv4(network: int | None = None) -> str:
    """Returns a public address, in a network of 256 addresses if its number is given."""
    while True:
        address = ipaddress.IPv4Address(
            (RANDOM.randrange(1 << 16, 224 << 16) if network is None else network) << 8 | RANDOM.randrange(1, 255)
        )
        if address.is_global:
            return str(address)


def ipv6() -> str:
    high = draw("2a0[0-9a-f]:[1-9a-f][0-9a-f]{0,3}|2001:4[0-9a-f]{2}|2606:4700|240[0-9a-f]:[1-9a-f][0-9a-f]{3}")
    groups = [draw("[1-9a-f][0-9a-f]{0,3}") for _ in range(6)]
    full = f"{high}:{':'.join(groups)}"
    forms = [full, f"{high}::{groups[0]}", f"{high}:{groups[0]}:{groups[1]}::{groups[2]}", f"2a0{groups[1][0]}::1", full.upper()]
    forms += [ipaddress.IPv6Address(full).exploded, f"64:ff9b::{ipv4()}", f"{high}::{ipv4()}", f"::ffff:{ipv4()}"]
    return RANDOM.choice(forms)


def addresses() -> Iterator[Case]:
    for kind, frames in TABLES["ip_frames"].items():
        for frame in frames * 10:
            network = int(ipaddress.IPv4Address(ipv4())) >> 8
            yield filled(kind, frame, frame, partial(ipv4, network) if kind == "ipv4" else ipv6)


def secrets() -> Iterator[Case]:
    for rule, pattern in TABLES["secrets"]:
        frames = TABLES["secret_frames_of"].get(rule) or RANDOM.sample(TABLES["secret_frames"], 4)
        for frame in frames:
            token = draw(pattern)
            yield filled("secret", rule, frame.replace("{name}", rule.split("-")[0].upper()), token)
    for frame in TABLES["password_frames"]:
        for pattern in TABLES["passwords"]:
            yield filled("secret", "password in a URL", frame, partial(draw, pattern))


def negatives() -> Iterator[Case]:
    for group, texts in TABLES["negatives"].items():
        yield from (Case("none", group, text, []) for text in texts)
    for group, patterns in TABLES["negative_patterns"].items():
        yield from (Case("none", group, draw(pattern), []) for pattern, count in patterns.items() for _ in range(count))


def cases() -> list[Case]:
    """Returns all cases, the same at each call."""
    RANDOM.seed(28)
    makers = (phones, national_ids, passports, cards, ibans, emails, addresses, secrets, negatives)
    return [case for maker in makers for case in maker()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    lines = [json.dumps(asdict(case), ensure_ascii=False) for case in cases()]
    parser.parse_args().output.write_text("\n".join(lines) + "\n", "utf-8")
