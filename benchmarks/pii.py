"""Measures the step `pii` beside datatrove's PIIFormatter, presidio and libphonenumber's matcher: on made cases, and on documents.

    python benchmarks/pii.py [DOCUMENTS.jsonl MORE.parquet ...] [--megabytes 50] [--show KIND] [--judge N] [--forms SEED]

Cases (`pii_cases.py`): recall is the share of personal data of which no run of 5 letters and digits stays, damaged are texts of which
something else changed, false positives are texts without personal data that changed. `--show KIND` lists what stays and what is damaged
(`none`: what is replaced although nothing should be). presidio has its pattern recognizers of all countries (`PRESIDIO_OMITS` says which
are left out), a blank spaCy pipeline, and its default threshold, 0; `pip install corpusmill[peers]` brings it, and its column is left
out without it. datatrove knows emails and IPv4 only.

Forms (`pii_forms.py`, `--forms SEED`): recall by how data is written, texts without personal data that changed, and the precision of each
kind on all of them; the cases are others for each seed. `--show` with `--forms` lists what stays there.

Documents: speeds are CPU times on one core, the best of some repetitions. Phones are compared with libphonenumber's matcher at
Leniency.VALID, for numbers with a country code, numbers of the United States, and numbers of the countries of columns `language` and
`url`. `--judge N` prints N random finds with their surroundings as JSONL, for judgement by eye.
"""

import argparse
import json
import logging
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import phonenumbers
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
from datatrove.pipeline.formatters.pii import PIIFormatter
from phonenumbers import Leniency, PhoneNumberMatcher
from pii_cases import TABLES, Case, cases
from pii_forms import forms

from corpusmill.filters.pii import KINDS, Pii, PiiConfig
from corpusmill.filters.pii_scan import TextColumn
from corpusmill.filters.step import DocumentBatch
from filters import speed, up_to

BATCH = 1000  # documents
MATCHER_MEGABYTES = 2
LEFT = 5  # letters and digits of a datum that still tell something
SHOWN = 200
AROUND = 60  # characters
REGIONS = {language: table["regions"][:3] for language, table in TABLES["phones"].items()}
#: Recognizers that need a model or a service, and of what is no kind of ours: other things, companies, vehicles, bills (parts of names).
PRESIDIO_OMITS = (
    "Azure|LangExtract|GLiNER|Ner|NER|Spacy|Stanza|Transformers|Url|Date|Crypto|MacAddress|Uuid|Plz|Post|Vehicle|LicensePlate|Kfz|Aba|UsBank"
    "|Handelsregister|Organisations|Company|Brn|Uen|Vat|Npi|Lanr|Bsnr|Claim|Prescription|Referral|Authorization|MedicalLicense|Acn|Gstin"
)


def outcome(case: Case, output: str) -> tuple[list[bool], bool]:
    """Returns whether each datum is gone, and whether anything else changed; then data is looked for in all of the output."""
    places = [0, *(place for span in case.spans for place in span), len(case.text)]
    outside = [case.text[start:end] for start, end in zip(places[::2], places[1::2])]
    whole = re.fullmatch("(.+?)".join(map(re.escape, outside)), output, re.DOTALL)
    parts = whole.groups() if whole else [output] * len(case.spans)
    return [not stays(case.text[start:end], part) for (start, end), part in zip(case.spans, parts)], not whole


def stays(datum: str, part: str) -> bool:
    longest = SequenceMatcher(None, datum, part, autojunk=False).find_longest_match()
    left, whole = (sum(map(str.isalnum, text)) for text in (datum[longest.a :][: longest.size], datum))
    return left >= min(LEFT, whole)


def replaced(texts: list[str], step: Pii | None = None) -> list[str]:
    step = step or Pii(PiiConfig())
    outputs = [(part, step.measure(part).text) for part in batches(texts)]
    return [text for part, output in outputs for text in (part.text if output is None else output).to_pylist()]


def presidio() -> Callable[[str], str]:
    logging.getLogger("tldextract").setLevel(logging.CRITICAL)  # says at length that it could not fetch its newest list
    import spacy
    from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, predefined_recognizers
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Blank(SpacyNlpEngine):
        def __init__(self) -> None:
            super().__init__()
            self.nlp = {"en": spacy.blank("en")}

    every = [getattr(predefined_recognizers, name) for name in dir(predefined_recognizers) if not re.search(PRESIDIO_OMITS, name)]
    chosen = [kind(supported_language="en") for kind in every if isinstance(kind, type) and issubclass(kind, EntityRecognizer)]
    engine = AnalyzerEngine(RecognizerRegistry(chosen, supported_languages=["en"]), Blank(), supported_languages=["en"])

    def replace(text: str) -> str:
        pieces, done = [], 0
        for find in sorted(engine.analyze(text, "en"), key=lambda find: (find.start, -find.end)):
            if find.start >= done:
                pieces += [text[done : find.start], f"<{find.entity_type}>"]
            done = max(done, find.end)
        return "".join([*pieces, text[done:]])

    return replace


def peers() -> dict[str, Callable[[list[str]], list[str]]]:
    formatter = PIIFormatter()
    known: dict[str, Callable[[list[str]], list[str]]] = {"corpusmill": replaced}
    known["datatrove"] = lambda texts: [formatter.format(text) for text in texts]
    try:
        analyze = presidio()
    except ImportError:
        print("presidio-analyzer is not installed, so its column is left out.\n")
    else:
        known["presidio"] = lambda texts: [analyze(text) for text in texts]
    return known


def compare(every: list[Case]) -> None:
    """Prints the tables of cases: by kind, and of texts without personal data by group."""
    texts = [case.text for case in every]
    outcomes = {name: [outcome(case, output) for case, output in zip(every, replace(texts))] for name, replace in peers().items()}
    print(f"{'':24} {'data':>6} " + "".join(f"{name + ': recall':>20} {'damaged':>8}" for name in outcomes))
    for kind in dict.fromkeys(case.kind for case in every if case.spans):
        row = f"{kind:24} {sum(len(case.spans) for case in every if case.kind == kind):6,} "
        for found in outcomes.values():
            chosen = [result for case, result in zip(every, found) if case.kind == kind]
            gone = [one for spans, _ in chosen for one in spans]
            row += f"{sum(gone) / len(gone):20.1%} {sum(damaged for _, damaged in chosen):8,}"
        print(row)
    print(f"\n{'without personal data':24} {'texts':>6} " + "".join(f"{name + ': replaced':>29}" for name in outcomes))
    for group, count in Counter(case.group for case in every if not case.spans).items():
        changed = [sum(damaged for case, (_, damaged) in zip(every, found) if case.group == group) for found in outcomes.values()]
        print(f"{group:24} {count:6,} " + "".join(f"{number:29,}" for number in changed))


def by_form(every: list[Case]) -> None:
    """Prints recall by form, changed texts without personal data by group, and the precision of each kind; all kinds are looked for."""
    step = Pii(PiiConfig(kinds=[kind.name for kind in KINDS]))
    outcomes = [outcome(case, output) for case, output in zip(every, replaced([case.text for case in every], step))]
    groups = dict.fromkeys((case.kind, case.group.partition(",")[0]) for case in every)
    for kind, group in groups:
        chosen = [(case, *found) for case, found in zip(every, outcomes) if (case.kind, case.group.partition(",")[0]) == (kind, group)]
        gone = [one for _, spans, _ in chosen for one in spans]
        share = f"recall {sum(gone) / len(gone):6.1%}" if gone else "without data "
        print(f"{kind:13} {group:32} {len(chosen):6,} {share}  damaged {sum(damaged for *_, damaged in chosen):4}")
    languages = defaultdict(list)
    for case, (gone, _) in zip(every, outcomes):
        if "telephone word" in case.group:
            languages[case.group.rpartition(" ")[2]] += gone
    most = sum(sum(gone) >= 5 / 6 * len(gone) for gone in languages.values())
    print(f"languages of which five of six telephone numbers go: {most} of {len(languages)}")
    right, wrong = Counter[str](), Counter[str]()
    for case, found in zip(every, finds([case.text for case in every], step)):
        for kind, start, end in found:
            (right if kind == case.kind and overlaps(start, end, case.spans) else wrong)[kind] += 1
    print("\n".join(f"precision {kind:13} {right[kind] / (right[kind] + wrong[kind]):6.1%}, false {wrong[kind]}" for kind in right))


def show(every: list[Case], kind: str) -> None:
    """Prints, by group, the cases of a kind that are missed or damaged, with their outputs."""
    step = Pii(PiiConfig(kinds=[kind.name for kind in KINDS]))
    chosen = [case for case in every if case.kind == kind]
    totals = Counter(case.group for case in chosen)
    wrong = []
    for case, output in zip(chosen, replaced([case.text for case in chosen], step)):
        gone, damaged = outcome(case, output)
        if damaged or not all(gone):
            wrong.append((case.group, "damaged" if damaged else "missed", case.text, output))
    for group, count in Counter(group for group, *_ in wrong).most_common():
        print(f"{group}: {count} of {totals[group]}")
    for group, what, text, output in random.Random(1).sample(wrong, min(SHOWN, len(wrong))):
        print(f"{group:24.24} {what:8} {text!r} -> {output!r}")


# Documents


def read(paths: list[Path]) -> list[dict[str, Any]]:
    """Returns texts with their columns `language` and `url`, if they have them."""
    rows = []
    for path in paths:
        table = pq.read_table(path) if path.suffix == ".parquet" else pa.json.read_json(path)
        rows += table.select([name for name in ("text", "language", "url") if name in table.column_names]).to_pylist()
    return [row for row in rows if row["text"]]


def batches(texts: list[str]) -> list[DocumentBatch]:
    column = pa.array(texts, pa.large_string())
    return [DocumentBatch(pa.table({}), column.slice(start, BATCH), "words") for start in range(0, len(texts), BATCH)]


def speeds(texts: list[str]) -> None:
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    parts = batches(texts)
    step = Pii(PiiConfig())
    columns = [step.measure(part).columns for part in parts]
    print(f"\n{len(texts):,} documents, {megabytes:.1f} MB\n\n{'':26} {'MB/s':>7} {'finds':>7} {'documents':>10}")
    for kind in step.kinds:
        alone = Pii(PiiConfig(kinds=[kind.name]))
        rate = speed(lambda alone=alone: [alone.measure(part) for part in parts], megabytes)
        finds, documents = (sum(int(count(each[kind.column])) for each in columns) for count in (sum, lambda each: (each > 0).sum()))
        print(f"{kind.column:26} {rate:7.1f} {finds:7,} {documents:10,}")
    print(f"{'all, with replacement':26} {speed(lambda: [step.measure(part) for part in parts], megabytes):7.1f}")
    formatter = PIIFormatter()
    print(f"{'datatrove: email and IPv4':26} {speed(lambda: [formatter.format(text) for text in texts], megabytes):7.1f}")
    some = up_to(texts, MATCHER_MEGABYTES)
    size = sum(len(text.encode()) for text in some) / 1e6
    print(f"{'phonenumbers: +1 ...':26} {speed(lambda: [list(PhoneNumberMatcher(t, None, Leniency.VALID)) for t in some], size):7.1f}")


def finds(texts: list[str], step: Pii) -> list[list[tuple[str, int, int]]]:
    """Returns, for each text, its finds: kind, start and end in characters."""
    column = TextColumn(pa.array(texts, pa.large_string()))
    found: list[list[tuple[str, int, int]]] = [[] for _ in texts]
    for kind, spans in zip(step.kinds, step.find(column)):
        for (start, end), document in zip(spans.tolist(), column.documents_of(spans).tolist()):
            base = int(column.offsets[document])
            first, last = (len(column.data[base:place].tobytes().decode()) for place in (start, end))
            found[document].append((kind.name, first, last))
    return found


def regions(row: dict[str, Any]) -> list[str | None]:
    """Returns the countries whose numbers the matcher takes without their codes. None: no country's."""
    domain = (urlsplit(row.get("url") or "").hostname or "").rsplit(".", 1)[-1].upper().replace("UK", "GB")
    language = re.split("[-_]", row.get("language") or "")[0]
    guesses = [*REGIONS.get(language, []), *([domain] if domain in phonenumbers.SUPPORTED_REGIONS else [])]
    return [None, *dict.fromkeys([*guesses, "US"])]


def overlaps(start: int, end: int, spans: Iterable[tuple[int, int]]) -> bool:
    return any(first < end and start < last for first, last in spans)


def listed(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, list[bool]]]:
    """Returns our finds with the text around them, and for each phone of the matcher, by the sort of its country, if it is among them."""
    every, matched = [], defaultdict(list)
    for row, found in zip(rows, finds([row["text"] for row in rows], Pii(PiiConfig()))):
        text, ours = row["text"], [(start, end) for _, start, end in found]
        matches: list[tuple[int, int]] = []
        for region in regions(row):
            sort = "with country code" if region is None else "of the US" if region == "US" else "of the page's countries"
            for match in PhoneNumberMatcher(text, region, Leniency.VALID):
                if not overlaps(match.start, match.end, matches):
                    matches.append((match.start, match.end))
                    matched[sort].append(overlaps(match.start, match.end, ours))
        for kind, start, end in found:
            around = {"before": text[max(start - AROUND, 0) : start], "find": text[start:end], "after": text[end : end + AROUND]}
            every.append({"kind": kind, "matched": overlaps(start, end, matches), **around, "url": row.get("url")})
    return every, matched


def pages(rows: list[dict[str, Any]]) -> None:
    every, matched = listed(rows)
    print("\nfinds:", ", ".join(f"{count:,} {kind}" for kind, count in Counter(find["kind"] for find in every).most_common()) or "none")
    for sort, hits in matched.items():
        print(f"phones that the matcher finds, {sort}: {len(hits):,}, found of these {sum(hits) / len(hits):.1%}")
    phones = [find["matched"] for find in every if find["kind"] == "phone"]
    print(f"phones that the matcher does not find: {phones.count(False):,} of {len(phones):,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="*", type=Path, help="JSONL or Parquet files with a column text")
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--show", choices=[*(kind.name for kind in KINDS), "none"])
    parser.add_argument("--judge", type=int, metavar="N")
    parser.add_argument("--forms", type=int, metavar="SEED")
    arguments = parser.parse_args()
    rows = read(arguments.documents)
    if arguments.show:
        show(cases() if arguments.forms is None else forms(arguments.forms), arguments.show)
        return
    if arguments.forms is not None:
        by_form(forms(arguments.forms))
        return
    if arguments.judge:
        every, _ = listed(rows)
        for find in random.Random(28).sample(every, min(arguments.judge, len(every))):
            print(json.dumps(find, ensure_ascii=False))
        return
    compare(cases())
    if rows:
        speeds(up_to([row["text"] for row in rows], arguments.megabytes))
        pages(rows)


if __name__ == "__main__":
    main()
