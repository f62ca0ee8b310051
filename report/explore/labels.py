"""Labels that people give to documents: which documents are worth a look, and how well each rule agrees with the labels.

A rule agrees with a label where it drops a document that has the label, and where it keeps one that has another. Of documents that several
people have labelled, the label of most of them counts. The first documents of a random order are an unbiased sample of the corpus once all
of them are labelled, by whatever way they were found; all other labels are of documents that somebody has chosen.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from corpusmill.filters.labels import DocumentLabel, DocumentLabels, checked_names, hash_of, now
from corpusmill.filters.rules import fails
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.intervals import wilson
from corpusmill.report.explore.answers import Answer, document_rows, plain
from corpusmill.report.explore.explorer import Explorer
from corpusmill.report.explore.parameters import AgreementAsked, BadRequest, LabelGiven, LabelsAsked, NamesGiven, QueueAsked, shown
from corpusmill.report.explore.selection import Loaded, number_column
from corpusmill.report.explore.table import Bools, StageTable
from corpusmill.report.explore.thresholds import has_slider
from corpusmill.report.read import ReportRule

#: The threshold of a score that no rule compares with one.
MIDDLE = 0.5

# ---- labels --------------------------------------------------------------------------------------


def labels(explorer: Explorer, query: LabelsAsked, who: str) -> Answer:
    """Returns the names of labels, how many there are of each, and the labels of one document."""
    found = explorer.labels.read()
    document = [] if query.key is None else found.of(_place(explorer, query.key)[2])
    table = explorer.stage(query.stage).table
    counts = Counter(label.label for label in found.given.values())
    scores = [c.name for c in table.numbers() if not c.whole and c.low is not None and c.high is not None and c.low >= 0 and c.high <= 1]
    return {
        "who": who,
        "names": list(found.names),
        "counts": [{"label": plain(name), "documents": count} for name, count in counts.most_common()],
        "people": len({label.who for label in found.given.values()}),
        "document": [{"label": plain(label.label), "who": plain(label.who), "when": label.when.isoformat()} for label in document],
        "scores": scores,
    }


def give_label(explorer: Explorer, given: LabelGiven, who: str) -> Answer:
    """Gives a document a person's label, or removes it (`label` null). Raises BadRequest if the document has no text in the run."""
    loaded, number, id_ = _place(explorer, given.key)
    text = loaded.texts().of(number) if given.label is not None else None
    if given.label is not None and text is None:
        raise BadRequest(f"The text of {shown(id_)} is not in the run any more, so it can't be labelled.")

    def edit(before: DocumentLabels) -> DocumentLabels:
        if given.label is None:
            return before.without(id_, who)
        if given.label not in before.names:
            raise BadRequest(f"There is no label {shown(given.label)} (there are {', '.join(before.names)}).")
        return before.with_labels([DocumentLabel(id_, given.label, who, now(), hash_of(text or ""))])

    changed = explorer.labels.change(edit)
    loaded.table.looked_up.setdefault(id_, number)
    return {"document": [{"label": plain(one.label), "who": plain(one.who), "when": one.when.isoformat()} for one in changed.of(id_)]}


def name_labels(explorer: Explorer, given: NamesGiven, _: str) -> Answer:
    """Replaces the names of labels. A name that documents have stays in their labels, but no key gives it any more."""
    try:
        names = checked_names(given.names)
    except InputError as error:
        raise BadRequest(str(error)) from error
    changed = explorer.labels.change(lambda before: DocumentLabels(names, before.given))
    return {"names": list(changed.names)}


def _place(explorer: Explorer, key: str) -> tuple[Loaded, int, str]:
    """Returns the stage, the row and the id of a document. Raises BadRequest if there is no such row."""
    loaded, number = explorer.row(key)
    return loaded, number, loaded.table.rows_of([number])[0].id


def _numbers(table: StageTable, ids: Iterable[str]) -> dict[str, int]:
    """Returns the row of each labelled document that the report has. DuckDB is asked only for ids that are new."""
    wanted = list(ids)
    new = [id_ for id_ in wanted if id_ not in table.looked_up]
    table.looked_up |= {**dict.fromkeys(new, -1), **table.numbers_of(new)}
    return {id_: number for id_ in wanted if (number := table.looked_up[id_]) >= 0}


# ---- what is worth a look ------------------------------------------------------------------------


def queue(explorer: Explorer, query: QueueAsked, who: str) -> Answer:
    """Returns the next documents of a queue that this person has not labelled, and how many there are in all."""
    table = explorer.stage(query.stage).table
    mine = [label.id for label in explorer.labels.read().given.values() if label.who == who]
    left = np.ones(table.rows, bool)
    left[list(_numbers(table, mine).values())] = False
    if query.kind in ("near", "uncertain"):
        rows, total = _nearest(table, *_border(table, query), left, query.limit)
    else:
        if query.kind == "disagree":
            left &= _fails(table, query.rule, 0) != _fails(table, query.rule, 1)
        wanted = table.random_order[left[table.random_order]]
        rows, total = wanted[: query.limit].tolist(), len(wanted)
    return {"total": total, "rows": document_rows(explorer, table, rows, None)}


def _border(table: StageTable, query: QueueAsked) -> tuple[str, float]:
    """Returns the column and the threshold to which a queue's documents are nearest."""
    if query.kind == "near":
        rule = next((rule for rule in table.rules if rule.rule in query.rule and has_slider(table, rule)), None)
        if rule is None:
            raise BadRequest("Say which rule (rule=NAME); its threshold has to be a number.")
        return rule.column, float(rule.threshold)
    column = number_column(table, query.column or "").name
    own = next((rule for rule in table.rules if rule.column == column and has_slider(table, rule)), None)
    return column, MIDDLE if own is None else float(own.threshold)


def _nearest(table: StageTable, column: str, threshold: float, left: Bools, limit: int) -> tuple[list[int], int]:
    distance = np.abs(table.array(column).astype(np.float64) - threshold)
    rows = np.flatnonzero(left & np.isfinite(distance))
    near = rows
    if len(rows) > limit:
        farthest = np.partition(distance[rows], limit - 1)[limit - 1]
        near = rows[distance[rows] <= farthest]
    found: list[int] = near[np.argsort(distance[near], kind="stable")][:limit].tolist()
    return found, len(rows)


def _fails(table: StageTable, rules: tuple[str, ...], place: int) -> Bools:
    """bool (rows): whether the rows fail a rule."""
    number = table.verdicts.rule(rules[place]) if len(rules) == 2 else None
    if number is None:
        raise BadRequest(f"Say which two rules of {table.name} (rule=A&rule=B).")
    return np.array([number in verdict.failed for verdict in table.verdicts.all], bool)[table.verdict]


# ---- agreement of rules with labels --------------------------------------------------------------


def agreement(explorer: Explorer, query: AgreementAsked) -> Answer:
    """Compares each rule's decisions with one label (see the module). `sample`: which labels count."""
    table, found = explorer.stage(query.stage).table, explorer.labels.read()
    if query.label not in {*found.names, *(label.label for label in found.given.values())}:
        raise BadRequest(f"There is no label {shown(query.label)} (there are {', '.join(found.names)}).")
    majority = found.by_document()
    numbers = _numbers(table, majority)
    random = _random_sample(table, list(numbers.values()))
    chosen = set(random) if query.sample == "random" else set(numbers.values())
    used = sorted(
        (number, majority[id_] == query.label) for id_, number in numbers.items() if number in chosen and majority[id_] is not None
    )
    rows, wanted = np.array([number for number, _ in used], np.int64), np.array([has for _, has in used], bool)
    decided = [table.verdicts.all[code] for code in table.verdict[rows].tolist()]
    together = _agreed(np.array([not verdict.kept for verdict in decided], bool), wanted)
    by_name = {rule.rule: rule for rule in table.rules if has_slider(table, rule)}
    measured = table.values_of(rows, [rule.column for rule in by_name.values()])
    rules = []
    for number, name in enumerate(table.verdicts.rules):
        drops = np.array([number in verdict.failed for verdict in decided], bool)
        rules.append({"rule": name, **_agreed(drops, wanted), "best": _best(measured, by_name.get(name), wanted)})
    return {
        "label": query.label, "documents": len(rows), "with_label": int(wanted.sum()), "labelled": len(majority),
        "tied": sum(label is None for label in majority.values()), "elsewhere": len(majority) - len(numbers), "random": len(random),
        "together": together, "rules": rules,
    }  # fmt: skip


def _random_sample(table: StageTable, labelled: list[int]) -> list[int]:
    """Returns the rows at the beginning of the random order, up to the first that has no label."""
    without = np.ones(table.rows, bool)
    without[labelled] = False
    open_ = without[table.random_order]
    found: list[int] = table.random_order[: int(open_.argmax()) if open_.any() else table.rows].tolist()
    return found


def _agreed(drops: Bools, wanted: Bools) -> Answer:
    """Returns how far decisions agree with a label. `drops`, `wanted` (documents): dropped, has the label."""
    hits = int((drops & wanted).sum())
    return {
        "drops": int(drops.sum()),
        "precision": share_of(hits, int(drops.sum())),
        "recall": share_of(hits, int(wanted.sum())),
        "agreed": share_of(int((drops == wanted).sum()), len(wanted)),
    }


def share_of(hits: int, of: int) -> Answer | None:
    """Returns a share with Wilson's interval of 95%; None of nothing."""
    if not of:
        return None
    low, high = wilson(hits, of)
    return {"value": hits / of, "low": low, "high": high, "hits": hits, "of": of}


def _best(measured: Mapping[str, npt.NDArray[np.float64]], rule: ReportRule | None, wanted: Bools) -> Answer | None:
    """Returns the threshold under which most decisions of a rule agree with the label; of several, the one nearest to the present one.
    `measured`: by column, the values of the documents.

    Thresholds that are tried: the present one, each value of a labelled document, and one beyond all values on either side.
    """
    if rule is None or not len(wanted):
        return None
    values, present = measured[rule.column], float(rule.threshold)
    known = ~np.isnan(values)
    finite = values[np.isfinite(values)]
    ends = [np.floor(finite.min()) - 1, np.ceil(finite.max()) + 1] if len(finite) else []
    tried = np.unique(np.concatenate([finite, ends, [present]]))
    hits, misses = (_dropped(np.sort(values[known & some]), rule.comparison, tried) for some in (wanted, ~wanted))
    best = tried[hits - misses == (hits - misses).max()]
    threshold = float(best[np.argmin(np.abs(best - present))])
    return {"threshold": threshold, **_agreed(fails(rule.comparison, values, threshold), wanted)}


def _dropped(values: npt.NDArray[np.float64], comparison: str, thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Counts for each threshold the values that fail. `values` ascend."""
    below, upto = np.searchsorted(values, thresholds, "left"), np.searchsorted(values, thresholds, "right")
    counts = {"<": below, "<=": upto, ">": len(values) - upto, ">=": len(values) - below, "==": upto - below}
    return counts[comparison].astype(np.int64)
