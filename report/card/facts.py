"""Makes table rows about filters, deduplication and tokens for the cards of models and of data. Every number is one of the report's."""

from dataclasses import dataclass
from typing import Any

from corpusmill.report.queries.rules import Decisions
from corpusmill.report.queries.summary import Summary
from corpusmill.report.tables import number

#: A label and its value.
Row = tuple[str, str]


@dataclass(frozen=True)
class RuleRow:
    """A rule: its condition (empty where its stage wrote no threshold), the documents that fail it, and those that fail only this rule."""

    name: str
    condition: str
    fired: int
    alone: int


def rule_rows(decisions: Decisions) -> list[RuleRow]:
    """Returns a stage's rules, those that fired most first."""
    conditions: dict[str, str] = {}
    for r in decisions.thresholds:
        before = f"{conditions[r.rule]}; " if r.rule in conditions else ""
        conditions[r.rule] = f"{before}{r.column} {r.comparison} {number(r.threshold)}"
    rules = sorted(decisions.rules.values(), key=lambda rule: -rule.fired)
    return [RuleRow(rule.name, conditions.get(rule.name, ""), rule.fired, rule.alone) for rule in rules]


def dedup_rows(summary: Summary) -> list[Row]:
    """Returns how many copies of each kind were removed, the definition of a copy, and other removals."""
    found, decisions, settings = summary.duplicates, summary.decisions.get("dedup"), summary.reader.settings("dedup")
    if found is None:
        return []
    clusters, total = found.clusters, decisions.rows if decisions else 0
    removed = {"exact": clusters.exact, "near": clusters.near, "by URL": clusters.url}
    of = f" ({{:.1%}} of {number(total)})" if total else ""
    rows = [(f"copies removed, {kind}", number(count) + of.format(count / (total or 1))) for kind, count in removed.items() if count]
    rows += [("groups of copies", number(clusters.count)), ("kept of a group", found.policy)]
    near: dict[str, Any] = settings.get("minhash") or {}
    if near.get("enabled"):
        what = f"{settings.get('similarity')} similarity of {number(found.threshold)} or more"
        rows.append(("near means", f"{what} on shingles of {near.get('ngram')} {near.get('unit')}"))
        rows.append(("candidates by", f"MinHash, {near.get('bands')} bands of {near.get('rows')} rows"))
    planted = found.planted.rows if found.planted else []
    for name, due in (("planted copies found", True), ("less similar planted pairs taken for copies", False)):
        count, of_all = (sum(row[key] for row in planted if row["due"] == due) for key in ("found", "pairs"))
        rows += [(name, f"{number(count)} of {number(of_all)}")] if of_all else []
    cuts = summary.cuts.rows if summary.cuts else ()
    rows += [(f"repeated {of['repeated']} cut from documents that stay", f"{number(of['characters'])} characters") for of in cuts]
    if contamination := summary.contamination:
        rows.append(("documents with items of evaluation sets", f"{number(contamination.documents)} of {number(contamination.seen)}"))
    return rows


def tokenizer_rows(summary: Summary) -> list[Row]:
    settings, judged = summary.reader.settings("tokenizer"), summary.tokenizer
    rows = [("kind", f"{settings.get('kind', 'bpe')}, cut by the expression of {settings.get('pattern')}")] if settings else []
    sizes = [t.get("vocabulary_size") for t in summary.tokens.values()]
    rows += [("vocabulary", number(size)) for size in sizes[:1]]
    if judged:
        overall = judged.tokenizers[0].all
        rows.append(("bytes a token", f"{number(overall.bytes_per_token)} on {number(overall.documents)} documents of the run"))
    return rows


def toxic(summary: Summary) -> int:
    """Returns the number of documents that the rules of the step `toxicity` dropped."""
    decided = summary.decisions.get("filter")
    rules = {rule.rule for rule in decided.thresholds if rule.step == "toxicity"} if decided else set()
    return sum(count.fired for count in decided.rules.values() if count.name in rules) if decided else 0
