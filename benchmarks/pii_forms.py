"""Cases by form, drawn anew for each seed: how data is written, and what only looks like it. `python benchmarks/pii.py --forms SEED`.

Frames, labels, names and patterns are those of `pii_cases.yaml`, sections `telephones` and `forms`.
"""

import re
from collections.abc import Iterator
from random import Random

from pii_cases import RANDOM, TABLES, Case, cards, draw, filled, iban_of, ipv4, phone, writings
from stdnum import numdb

FORMS = TABLES["forms"]
UNSPACED = ("ja", "ko", "zh", "th")
#: Behind these names for `@`, the dots of the host are words, too.
BARE = ("at", "AT", "arroba", "_at_")
MOBILES = {
    "8 (9xx)": r"8( \(9[0-6]\d\) |\(9[0-6]\d\)|-9[0-6]\d-| 9[0-6]\d )[1-9]\d\d-\d\d-\d\d",
    "010-": r"010-[2-8]\d{3}-\d{4}|010 [2-8]\d{3} \d{4}",
    "Japanese mobile": r"0[789]0-[1-9]\d{3}-\d{4}|0[789]0 [1-9]\d{3} \d{4}",
    "Chinese mobile": r"1(38|39|50|58|86|88)( \d{4} |-\d{4}-)\d{4}",
}


def international(random: Random) -> str:
    """Returns a number with 00 and the code of a country."""
    texts = writings(phone(random.choice(["DE", "GB", "FR", "NL", "CH", "PL", "ES"])))
    return "00" + random.choice([text for text in texts if text[0] == "+"])[1:]


def national(random: Random, regions: list[str]) -> str:
    """Returns a number as it is written in its own country."""
    return random.choice([text for text in writings(phone(random.choice(regions))) if not text.startswith(("+", "00"))])


def phones(random: Random) -> Iterator[Case]:
    for language, table in TABLES["telephones"].items():
        frames = ["{label}：{}", "{label}{}", "{label}: {}"] if language in UNSPACED else FORMS["frames"]
        for label in table["labels"] * 6:
            text = random.choice(writings(phone(random.choice(table["regions"]))))
            frame = random.choice(frames).replace("{label}", random.choice([label, label[:1].upper() + label[1:]]))
            yield filled("phone", f"behind a telephone word, {language}", frame, text)
    for table in FORMS["desks"]:
        for label in table["labels"]:
            for frame in random.sample(FORMS["desk_frames"], 3):
                yield filled("phone", "behind another label", frame.replace("{label}", label), national(random, table["regions"]))
    for name in FORMS["names"]:
        for frame in random.sample(FORMS["name_frames"], 4):
            number = national(random, ["DE", "GB", "FR", "IT", "ES", "TR", "NL", "ZA", "AU"])
            yield filled("phone", "behind a name", frame.replace("{name}", name), number)
    for frame in FORMS["phone_frames"] * 5:
        for name, pattern in MOBILES.items():
            yield filled("phone", f"no label: {name}", frame, draw(pattern))
        plain = random.choice(FORMS["mobile_frames"])
        yield filled("phone", "no label: plain mobile at home", plain[0], draw(plain[1]))
        yield filled("phone", "no label: 00 and a country code", frame, international(random))


def payments(random: Random) -> Iterator[Case]:
    registry = numdb.get("iban")
    for country in ["DE", "FR", "GB", "NL", "ES", "IT", "PL", "CH", "AT", "BE", "SE", "NO", "LT", "MT", "SA", "TR"] * 4:
        number = iban_of(country, registry.info(country)[0][1]["bban"])
        written = random.choice([number, " ".join(re.findall(".{1,4}", number))])
        for before in ("IBAN ", random.choice(["", "账户", "口座"])):
            yield filled("iban", "before a script without spaces", f"{before}{{}}{random.choice(FORMS['unspaced'])}", written)
        yield filled("iban", "lower case without the word", random.choice(FORMS["lower_frames"]), written.lower())
    for case in random.sample([case for case in cards() if len(case.spans) == 1], 150):
        yield filled("credit_card", "alone on its line", random.choice(FORMS["card_lines"]), case.text[slice(*case.spans[0])])


def net(random: Random) -> Iterator[Case]:
    """Yields addresses; those of the last kind have words for their signs."""
    people, hosts = FORMS["people"], FORMS["hosts"]
    for _ in range(2000):
        yield filled("ipv4", "any public address", random.choice(FORMS["address_frames"]), ipv4())
    for _ in range(300):
        yield filled("email", "any address", random.choice(FORMS["email_frames"]), f"{random.choice(people)}@{random.choice(hosts)}")
    for _ in range(300):
        at, dot = random.choice([*zip(FORMS["at"], FORMS["dot"])])
        dot = dot if at.strip() in BARE or random.random() < 0.6 else "."
        address = random.choice(people).replace("_", ".") + at + random.choice(hosts).replace(".", dot)
        yield filled("hidden_email", "words for signs", random.choice(FORMS["email_frames"][:-1]), address)


def negatives(random: Random) -> Iterator[Case]:
    """Yields 2,000 texts without personal data, of the rows first, then of all kinds."""
    for group, (count, *patterns) in FORMS["negatives"].items():
        for _ in range(count):
            pattern = re.sub("<([a-z]+)>", lambda part: FORMS["parts"][part[1]], random.choice(patterns))
            yield Case("none", group, draw(pattern), [])


def forms(seed: int) -> list[Case]:
    """Returns the cases of a seed."""
    RANDOM.seed(seed)
    random = Random(seed)
    return [case for make in (phones, payments, net, negatives) for case in make(random)]
