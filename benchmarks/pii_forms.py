"""Cases by form, drawn anew for each seed: how data is written, and what only looks like it. `python benchmarks/pii.py --forms SEED`.

The frames, labels and names are those of `pii_cases.yaml`, sections `telephones` and `forms`. A row is a form; its cases have data that must
go, or none.
"""

import ipaddress
from collections.abc import Callable, Iterator
from random import Random

from pii_cases import RANDOM, TABLES, Case, cards, filled, iban_of, ipv4, phone, writings
from stdnum import luhn, numdb

FORMS = TABLES["forms"]
WIDE = ("ja", "ko", "zh", "th")


def national(random: Random, regions: list[str]) -> str:
    """Returns a number as it is written in its own country."""
    texts = [text for text in writings(phone(random.choice(regions))) if not text.startswith(("+", "00"))]
    return random.choice(texts)


def telephones(random: Random) -> Iterator[Case]:
    for language, table in TABLES["telephones"].items():
        for label in table["labels"]:
            for _ in range(6):
                frame = random.choice(["{label}：{}", "{label}{}", "{label}: {}"] if language in WIDE else FORMS["frames"])
                text = random.choice(writings(phone(random.choice(table["regions"]))))
                label = random.choice([label, label[:1].upper() + label[1:]])
                yield filled("phone", f"behind a telephone word, {language}", frame.replace("{label}", label), text)


def desks(random: Random) -> Iterator[Case]:
    for table in FORMS["desks"]:
        for label in table["labels"]:
            for frame in random.sample(["{label}: {}", "{label}: {}", "{label} {}", "{label} - {}", "{label}\n{}", "| {label} | {} |"], 3):
                yield filled("phone", "behind another label", frame.replace("{label}", label), national(random, table["regions"]))
    for name in FORMS["names"]:
        for frame in random.sample(["{name}: {}", "{name}, {}", "{name} {}", "{name} ({})", "- {name}: {}"], 4):
            number = national(random, ["DE", "GB", "FR", "IT", "ES", "TR", "NL", "ZA", "AU"])
            yield filled("phone", "behind a name", frame.replace("{name}", name), number)


def digits(random: Random, count: int, first: str = "0123456789") -> str:
    return random.choice(first) + "".join(random.choice("0123456789") for _ in range(count - 1))


def unlabelled(random: Random) -> Iterator[Case]:
    def one(form: int) -> str:
        d, sign = (lambda n: digits(random, n)), random.choice(" -")
        if form == 0:
            return random.choice(["8 (9{}) {}-{}-{}", "8(9{}){}-{}-{}", "8-9{}-{}-{}-{}", "8 9{} {}-{}-{}", "8 9{} {} {} {}"]).format(
                random.choice(["16", "03", "26", "85", "67"]), digits(random, 3, "123456789"), d(2), d(2)
            )
        if form == 1:
            return f"010{sign}{digits(random, 4, '2345678')}{sign}{d(4)}"
        if form == 2:
            return f"0{random.choice('789')}0{sign}{digits(random, 4, '123456789')}{sign}{d(4)}"
        if form == 3:
            return f"1{random.choice(['38', '39', '50', '58', '86', '88'])}{sign}{d(4)}{sign}{d(4)}"
        number = random.choice([text for text in writings(phone(random.choice(["DE", "GB", "FR", "NL", "CH", "PL", "ES"]))) if text[0] == "+"])
        return "00" + number[1:]

    names = ("8 (9xx)", "010-", "Japanese mobile", "Chinese mobile", "00 and a country code")
    for form, name in enumerate(names):
        for frame in ("{}", "Anna {} Berlin", "write or {}!", "• {}\n• next", "({})", "A. Kim / {}", "朝10時から {} まで") * 5:
            yield filled("phone", f"no label: {name}", frame, one(form))


def payments(random: Random) -> Iterator[Case]:
    registry = numdb.get("iban")
    for country in ["DE", "FR", "GB", "NL", "ES", "IT", "PL", "CH", "AT", "BE", "SE", "NO", "LT", "MT", "SA", "TR"]:
        bban = registry.info(country)[0][1]["bban"]
        for _ in range(4):
            number = iban_of(country, bban)
            printed = random.choice([number, " ".join(number[at : at + 4] for at in range(0, len(number), 4))])
            yield filled("iban", "before a script without spaces", "IBAN {}" + random.choice(FORMS["unspaced"]), printed)
            yield filled("iban", "before a script without spaces", random.choice(["", "账户", "口座"]) + "{}" + random.choice(FORMS["unspaced"]), printed)
            yield filled("iban", "lower case without the word", random.choice(FORMS["lower_frames"]), printed.lower())
    whole = [case for case in cards() if case.group not in ("forms in a row",)]
    for case in random.sample(whole, 150):
        number = case.text[slice(*case.spans[0])]
        yield filled("credit_card", "alone on its line", random.choice(FORMS["card_lines"]), number)


def net(random: Random) -> Iterator[Case]:
    for _ in range(2000):
        yield filled("ipv4", "any public address", random.choice(FORMS["address_frames"]), ipv4())
    for _ in range(300):
        yield filled("email", "any address", random.choice(FORMS["email_frames"]), f"{random.choice(FORMS['people'])}@{random.choice(FORMS['hosts'])}")


def hidden(random: Random) -> Iterator[Case]:
    """Yields addresses whose signs are words. Behind a bare `at`, the dots are words, too."""
    for _ in range(300):
        place = random.randrange(len(FORMS["at"]))
        at, dot = FORMS["at"][place], FORMS["dot"][place]
        bare = at.strip() in ("at", "AT", "arroba", "_at_")
        dot = dot if bare or random.random() < 0.6 else "."
        address = random.choice(FORMS["people"]).replace("_", ".") + at + random.choice(FORMS["hosts"]).replace(".", dot)
        yield filled("hidden_email", "words for signs", random.choice(FORMS["email_frames"][:-1]), address)


def negatives(random: Random) -> Iterator[Case]:
    """Yields 2,000 texts without personal data, of the rows first, then of all kinds."""
    r, pick, d = random.randint, random.choice, (lambda n: digits(random, n, "123456789"))

    def year() -> int:
        return r(1930, 2035)

    def version() -> str:
        return f"{r(0, 60)}.{r(0, 130)}.{r(0, 250)}.{r(0, 250)}"

    def date(sign: str) -> str:
        return sign.join([f"{r(1, 28):02}", f"{r(1, 12):02}", str(year())])

    def quantity() -> str:
        number = pick([1, 2, 5, 10, 12, 15, 25, 35, 50, 80, 100, 120, 250, 400]) * pick([100_000, 1_000_000])
        return pick([str(number), f"{number:,}".replace(",", " "), f"{number:,}".replace(",", ".")])

    def degrees() -> str:
        return f"{r(1, 179)}.{digits(random, r(3, 8))}"

    def hexadecimal(n: int) -> str:
        return "".join(random.choice("0123456789abcdef") for _ in range(n))

    fax, telefon = ["Fax", "Fax:", "Telefax", "Faks"], ["Telefon", "Telefon:", "Telefone", "Teléfono", "Phone", "Telefono"]
    makers: dict[str, tuple[int, Callable[[], str]]] = {
        "date alone on a line": (200, lambda: pick(["News\n{}\nmore", "{}", "- {}\n", "A\n\n{}\n\nB"]).format(date(pick(" .-/ ")))),
        "years behind Fax": (100, lambda: f"{pick(fax)} {pick(['{}-{}', '{} {}', '{} - {}', '({}-{})', '{}/{}', '{}–{}', '{}, {}', '{}. {}']).format(year(), year())}"),
        "quantity behind Telefon": (100, lambda: f"{pick(telefon)} {quantity()}{pick(['', ' Euro', ' users', '.'])}"),
        "signed decimals": (100, lambda: pick(["{} {}", "{}, {}", "at {}", "{}/{}", "GPS: {} {}"]).format(*(f"{pick('+-+')}{degrees()}" for _ in range(2)))),
        "Call N people": (60, lambda: f"{pick(['Call', 'call', 'reach', 'ring', 'contact'])} {pick([1, 2, 5, 12, 35]) * 10 ** r(6, 8)} {pick(['people', 'users', 'homes'])}"),
        "version": (150, lambda: pick(["foo=={}", "Fixed in {}.", "foo>={}", "since {}", "Introduced in {}", "upgrade to {}", "foo~={}; python", "before {}", "behoben in {}", "foo < {}"]).format(version())),
        "host without a real end": (40, lambda: f"{pick(FORMS['people'])}@{pick(['db', 'mail', 'srv1', 'node-2'])}.{pick(['local', 'internal', 'lan', 'corp', 'intranet'])}"),
        "algorithm of SSH": (40, lambda: pick(["Ciphers {}", "debug1: kex: {}", "{},{}", "MACs {}"]).format(pick(FORMS["algorithms"]), pick(FORMS["algorithms"]))),
        "database": (40, lambda: pick(FORMS["databases"])),
        "order, invoice": (140, lambda: f"{pick(['Order', 'Invoice no.', 'Rechnung', 'Ref:', 'Commande n°', 'Pedido', 'Auftragsnummer:', 'Заказ', 'Ticket', 'Case', 'Kundennr.', 'Policy', '订单号：', 'Art.-Nr.'])} {pick([d(8), d(10), f'{d(3)}-{d(7)}', f'{d(4)} {d(4)}', f'0{d(3)}-{d(6)}', f'0{d(9)}', f'{d(2)}.{d(3)}.{d(3)}', f'0{d(2)} {d(3)} {d(4)}'])}"),
        "quantity": (140, lambda: f"{pick(['Population', 'Einwohner', 'Budget', 'Votes', 'Views', 'Umsatz', 'Habitants', 'Total', 'Area', 'Visitors'])}: {pick([f'{d(2)} {d(3)} {d(3)}', f'{d(3)} {d(3)} {d(3)}', f'{d(1)}.{d(3)}.{d(3)}', f'{d(9)}', f'{d(3)},{d(3)},{d(3)}'])}"),
        "identifiers": (150, lambda: pick([f"ISBN 978-{d(1)}-{d(4)}-{d(4)}-{d(1)}", f"PMID: {d(8)}", f"doi:10.{d(4)}/s{d(5)}-0{d(2)}-{d(5)}-{r(0, 9)}", f"commit {hexadecimal(40)}", f"{hexadecimal(8)}-{hexadecimal(4)}-4{hexadecimal(3)}-a{hexadecimal(3)}-{hexadecimal(12)}", f"EAN {d(13)}", f"CAS {d(5)}-{d(2)}-{d(1)}", f"eBay item {d(12)}", f"1Z{hexadecimal(3).upper()}{d(11)}", f"US patent {d(1)},{d(3)},{d(3)}", f"status/{d(19)}", f"NM_{d(9)}.{d(1)}", f"OCLC {d(10)}", f"HRB {d(6)}, USt-IdNr. DE{d(9)}", f"BLZ {d(3)} {d(3)} {d(2)}"])),
        "times": (120, lambda: pick([f"{r(10, 23)}:{r(10, 59)} - {r(10, 23)}:{r(10, 59)}", f"{year()}-{r(10, 12)}-{r(10, 28)} {r(10, 23)}:{r(10, 59)}:{r(10, 59)}", f"{date('.')} - {date('.')}", f"{year()}/{r(10, 99)} {year()}/{r(10, 99)}", f"{date('/')} {r(10, 23)}:{r(10, 59)}", f"1{d(9)}", f"{year()}{r(10, 12)}{r(10, 28)}{r(10, 23)}{r(10, 59)}{r(10, 59)}", f"Open {r(0, 1)}{r(1, 9)}00-1{r(1, 9)}00", f"{date(' ')} {date(' ')}"])),
        "tables": (140, lambda: pick([" ".join(d(2) for _ in range(r(4, 9))), "  ".join(f"{d(3)}.{d(2)}" for _ in range(5)), "\t".join(d(r(3, 6)) for _ in range(5)), "\n".join(d(4) for _ in range(4)), f"{d(2)}-{d(2)}-{d(2)}-{d(2)}-{d(2)}", f"{r(0, 7)}-{r(0, 7)} {r(0, 7)}-{r(0, 7)} {r(0, 7)}-{r(0, 7)} {r(0, 7)}-{r(0, 7)}", f"{d(1)} {d(3)} {d(3)} km²", f"0.{d(4)} 0.{d(4)} 0.{d(5)}", f"Loto: {' '.join(f'{r(1, 49):02}' for _ in range(6))}", f"pp. {d(4)}-{d(4)}, {d(4)}-{d(4)}"])),
        "text with numbers": (140, lambda: pick([f"Room {d(3)}, floor {r(1, 9)}, {d(5)} Berlin", f"{d(4)} x {d(4)} px, {d(3)} kB", f"Part No. {d(3)}-{d(4)}-{d(2)}", f"https://x.org/p/{d(10)}?id={d(9)}", f"img_{d(8)}_{d(6)}.jpg", f"Model {d(4)}-{d(4)}", f"rgb({r(0, 255)}, {r(0, 255)}, {r(0, 255)})", f"Art. {d(2)} Abs. {r(1, 9)} BGB, Az. {d(1)} U {d(3)}/{r(10, 24)}", f"KB{d(7)} and CVE-{year()}-{d(5)}", f"GeForce {d(4)} {d(4)} MHz", f"SIREN {d(3)} {d(3)} {d(3)}", f"MAC 00:1a:{r(10, 99)}:{r(10, 99)}:{r(10, 99)}:{r(10, 99)}", f"Chapter {r(1, 9)}.{r(1, 9)}.{r(1, 9)}.{r(1, 9)} Scope", f"Anna, {r(18, 90)}, won {d(1)}-{d(1)}, {d(1)}-{d(1)}", f"Konto {d(10)} bei der Bank"])),
        "random digits": (140, lambda: f"{pick(['The number is', 'Value:', 'It was', 'n ='])} {d(r(7, 19))}{pick(['', '.', ' here'])}"),
        "at signs and words": (100, lambda: pick([f"lodash@{r(1, 9)}.{r(0, 20)}.{r(0, 9)}", f"https://medium.com/@jane.doe/{hexadecimal(12)}", "logo@2x.png", f"meet at {pick(['noon', 'five', 'the station'])} dot", f"look at {pick(FORMS['hosts'])} for more", "connect the dots at home", f"he {pick(['works', 'shopped', 'looked', 'is', 'ordered', 'stayed'])} at {pick(['amazon', 'uber', 'booking'])} dot com for years", f"available at {pick(FORMS['hosts'])}.", f"{d(1)} apples @ {d(1)}.{d(2)} each", "@some.channel.tv", f"getty@tty{r(1, 6)}.service"])),
        "private networks": (100, lambda: pick([f"192.168.{r(0, 255)}.{r(1, 254)}", f"10.{r(0, 255)}.{r(0, 255)}.{r(1, 254)}:8080", f"mask 255.255.{pick([0, 128, 192, 240, 252])}.0", f"Version: {version()}", f"Chrome/{r(60, 130)}.0.{d(4)}.{d(2)}", f"v{version()}", f"OID 1.3.6.1.4.1.{d(5)}.{r(1, 9)}", f"fe80::{hexadecimal(4)}:{hexadecimal(4)}", "nameserver 8.8.8.8", f"EC {r(1, 6)}.{r(1, 20)}.{r(1, 20)}.{r(1, 99)}"])),
    }
    for group, (count, make) in makers.items():
        yield from (Case("none", group, make(), []) for _ in range(count))


def forms(seed: int) -> list[Case]:
    """Returns the cases of a seed."""
    RANDOM.seed(seed)
    random = Random(seed)
    return [case for make in (telephones, desks, unlabelled, payments, net, hidden, negatives) for case in make(random)]
