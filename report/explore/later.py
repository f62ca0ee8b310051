"""What became of documents that a stage kept: which of the stages behind it dropped them, and of what they are a copy."""

from collections.abc import Sequence
from typing import Any

from corpusmill.report.explore.explorer import EXPLORED, Explorer
from corpusmill.report.explore.table import StageTable

Told = dict[str, Any]


def dropped_later(explorer: Explorer, table: StageTable, rows: Sequence[Told]) -> list[Told | None]:
    """For each row (`id`, `kept`) of a report: the stage that dropped it and its rules; None where it was dropped before, or by none.

    Only stages that are loaded are asked. `copy_of` is the document that dedup kept in its place, None where there is none.
    """
    found: dict[str, Told] = {}
    left = [row["id"] for row in rows if row["kept"]]
    for name in EXPLORED[EXPLORED.index(table.name) + 1 :]:
        if name not in explorer.loaded or not left:
            continue
        later = explorer.loaded[name].table
        numbers = later.numbers_of(left)
        dropped = {id_: number for id_, number in numbers.items() if not later.kept[number]}
        originals = _originals(later, dropped)
        for id_, number in dropped.items():
            failed = [later.verdicts.rules[rule] for rule in later.verdicts.all[int(later.verdict[number])].failed]
            found[id_] = {"stage": name, "failed": failed, "copy_of": originals.get(id_)}
        left = [id_ for id_ in left if id_ not in dropped]
    return [found.get(row["id"]) if row["kept"] else None for row in rows]


def _originals(table: StageTable, dropped: dict[str, int]) -> dict[str, Told]:
    """By the id of a dropped copy: the document that was kept in its place, and how alike the two are."""
    if not dropped or "kept_id" not in table.columns:
        return {}
    copies = {row.id: row.values for row in table.rows_of(list(dropped.values()))}
    wanted = sorted({values["kept_id"] for values in copies.values() if values["kept_id"]})
    kept = {row.id: row for row in table.rows_of(list(table.numbers_of(wanted).values()))}
    told = {}
    for id_, values in copies.items():
        if (original := kept.get(values["kept_id"])) is not None and original.id != id_:
            similarity = values.get("similarity")
            told[id_] = {
                "key": f"{table.name}/{original.number}", "id": original.id, "url": original.url, "similarity": similarity,
            }  # fmt: skip
    return told
