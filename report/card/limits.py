"""What the documents of a run are not, in plain words: each sentence follows from something that the run did, or did not do."""

from typing import Any

from corpusmill.report.card.contents import Contents
from corpusmill.report.host import NONE
from corpusmill.report.queries.summary import Summary
from corpusmill.report.queries.values import PersonalKind
from corpusmill.report.read import RunReader
from corpusmill.report.tables import number

#: A host with more than this share of the documents is named.
ONE_HOST = 0.2


def limits(summary: Summary, contents: Contents, pii: list[tuple[str, PersonalKind]]) -> list[str]:
    reader = summary.reader
    steps = step_options(reader)
    return [
        *_origin(contents),
        *_languages(contents, steps),
        *_filters(summary, steps),
        *_personal(pii),
        *_copies(reader),
        *(f"Classifier {c.name}: {sentence.removeprefix(f'{c.name}: ')}" for c in summary.classifiers for sentence in c.warnings()),
        "The licences of the documents are those of their authors; nothing here says that they may be used for a given purpose.",
    ]


def step_options(reader: RunReader) -> dict[str, dict[str, Any]]:
    """The options of each of the filter stage's steps; of one that stands there twice, the last."""
    steps = reader.settings("filter").get("steps")
    items = [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    return {name: options if isinstance(options, dict) else {} for step in items for name, options in step.items()}


def _origin(contents: Contents) -> list[str]:
    found = []
    named = {host: count for host, count in contents.hosts.items() if host != NONE}
    if named:
        host, count = max(named.items(), key=lambda item: (item[1], item[0]))
        if count > ONE_HOST * contents.documents:
            found.append(f"{count / contents.documents:.0%} of the documents come from one host, {host}, and have its views and habits.")
    if any(source.startswith("/") for source in contents.sources):
        found.append('The column "source" holds paths of the machine on which the run was made.')
    if contents.undated:
        found.append(f"{number(contents.undated)} documents do not say when they were fetched.")
    return found


def _languages(contents: Contents, steps: dict[str, dict[str, Any]]) -> list[str]:
    options = steps.get("language")
    if options is None or contents.languages is None:
        return ["The languages of the documents were not identified."]
    model = "a fastText model" if options.get("model") else "fastText's lid.176"
    threshold = options.get("threshold")
    above = f" (a score above {number(threshold)} was asked for)" if threshold is not None else ""
    return [f"Languages were judged by {model}{above}, not by people: short, mixed and rare ones are often taken for others."]


def _filters(summary: Summary, steps: dict[str, dict[str, Any]]) -> list[str]:
    if not summary.reader.present(["filter"]):
        return ["The documents were not filtered: boilerplate, spam and machine text are still in them."]
    found = []
    toxicity = [rule for rule in summary.decisions["filter"].thresholds if rule.step == "toxicity"] if "filter" in summary.decisions else []
    dropped = sum(summary.decisions["filter"].rules[rule.rule].fired for rule in toxicity)
    if dropped:
        found.append(f"A toxicity classifier, which errs in both directions, dropped {number(dropped)} documents; offensive text is left.")
    elif "toxicity" in steps:
        found.append("Toxicity was measured, and no document was dropped for it: offensive text is in the documents.")
    else:
        found.append("Nothing was done against offensive text.")
    return found


def _personal(pii: list[tuple[str, PersonalKind]]) -> list[str]:
    if not pii:
        return ["Personal data was neither looked for nor replaced (the filter stage had no step pii)."]
    found = ["Personal data and secrets were found by their form alone: names, and what no form gives away, are left as they were."]
    left = [found.kind for _, found in pii if found.known and found.placeholder is None]
    return found + ([f"Found, counted, and left as they were: {', '.join(left)}."] if left else [])


def _copies(reader: RunReader) -> list[str]:
    if reader.stages["dedup"].status != "complete":
        return ["Copies of the same text were not removed."]
    settings, found = reader.settings("dedup"), []
    if not (settings.get("minhash") or {}).get("enabled", True):
        found.append("Near copies were not looked for, only exact ones.")
    elif settings.get("verification") not in (None, "exact"):
        found.append("Near copies were told by signatures alone, not by comparing texts, so some removed documents were no copies.")
    if not settings.get("contamination"):
        found.append("The documents were not searched for items of evaluation sets: scores on public benchmarks may be too good.")
    return found
