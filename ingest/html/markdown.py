"""The kept blocks of a page as Markdown: the text of `main_text.render` with marks for headings, items, quotes, tables, code and links."""

import re
from bisect import bisect_left
from collections.abc import Iterable
from functools import cached_property
from operator import mul
from typing import NamedTuple
from urllib.parse import urljoin

import numpy as np
from numpy.typing import NDArray

from corpusmill.ingest.html.tags import NAME, NAMES
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import ADDRESS, CODE, END, FIRST, FROM, ITEM, LAST, NODE, PARENT, START, TAG, TO, WHICH, Page

#: Marks of nested items and quotes before a line, at most; deeper ones are left out.
DEEPEST = 16
#: What a line of text may not begin with, because it would be read as a mark.
MARK = re.compile(r"^(?=#{1,6}\s|```|~~~|-{3,}\s*$|={3,}\s*$)", re.MULTILINE)
#: The language of code in the class of an element, and what stands there without being one.
LANGUAGE = re.compile(r"(?:^|\s)(?:language|lang|highlight-source|highlight|brush:|sourceCode|hljs|src)(?:-|\s+)([A-Za-z][\w+#.-]*)")
NO_LANGUAGE = re.compile(r"source|notranslate|default|none|text|plain\w*|nohighlight|code|hljs|copy|wrapper|output", re.IGNORECASE)
#: A grid may have COPIES times as many cells and characters as its table, and SOME more; else each cell stands once, without its spans.
COPIES, SOME = 4, 64
#: What would end the address of a link.
IN_ADDRESS = re.compile(r"[\s()<>]")
#: The largest colspan and rowspan of HTML.
WIDEST, HIGHEST = 1000, 65534
#: Elements that tell a table from a layout, and those that a cell of a table can't hold (after Readability's `_markDataTables`).
OF_TABLES, NOT_IN_TABLES = (
    [NAME[name] for name in names.split()] for names in ("caption colgroup tfoot thead th", "table pre h1 h2 h3 h4 h5 h6")
)


class Context(NamedTuple):
    """What lies around a block. `marks`: what stands before its lines, from the left: a mark and its node."""

    marks: tuple[tuple[str, int], ...] = ()
    heading: int = 0
    pre: int = -1
    table: int = -1


class Markdown:
    """Writes the kept blocks of a page, which was walked with `structure`, as Markdown. `base`: the page's URL if links are written."""

    def __init__(self, tree: Tree, page: Page, kept: NDArray[np.bool_], base: str | None):
        self.tree, self.page, self.base = tree, page, base
        self.text = page.text.tobytes()
        self.places = np.flatnonzero(kept)
        which = page.elements[:, WHICH]
        self.inline = page.elements[which == CODE if base is None else which < 0]
        self.begins = self.inline[:, FROM].tolist()
        #: By node, its row in `page.elements`.
        self.rows = np.zeros(len(page.nodes), np.int64)
        self.rows[which[which >= 0]] = np.flatnonzero(which >= 0)
        self.contexts = {-1: Context()}
        self.opened: set[int] = set()  # items whose mark is written
        self.out: list[str] = []
        self.last, self.last_tight = Context(), False

    def write(self) -> str:
        place = 0
        while place < len(self.places):
            block = self.page.blocks[self.places[place]]
            context = self.context(block[NODE])
            place += 1
            if context.pre >= 0:
                self.put(context, self.code(context.pre))
                place = self.kept_before(context.pre, LAST)
            elif context.table >= 0:
                self.put_table(context)
                place = self.kept_before(context.table, LAST)
            else:
                text = self.inlined(block[START], block[END])
                if context.heading:
                    text = "#" * context.heading + " " + text.replace("\n", " ")
                self.put(context, text, bool(block[ITEM]) or self.tag(block[NODE]) == "li")
        return "".join(self.out)

    def put(self, context: Context, text: str, tight: bool = False) -> None:
        """Adds lines of Markdown below those that are written; no blank line separates two `tight` ones."""
        if self.out:
            shared = [mark for mark, last in zip(context.marks, self.last.marks, strict=False) if mark == last]
            self.out.append("\n" if tight and self.last_tight else f"\n{_before(shared).rstrip()}\n")
        rest = _before(context.marks)
        first = "".join(mark if node not in self.opened else _before([(mark, node)]) for mark, node in context.marks)
        lines = text.split("\n")
        self.out.append("\n".join([first + lines[0], *(rest + line if line else rest.rstrip() for line in lines[1:])]))
        self.opened.update(node for _, node in context.marks)
        self.last, self.last_tight = context, tight

    # ---- What lies around a block

    def tag(self, node: int) -> str:
        return NAMES[self.page.nodes[node, TAG]]

    def attribute(self, node: int, name: bytes) -> str:
        return self.tree.attribute(int(self.page.elements[self.rows[node], ADDRESS]), name) or ""

    def kept_before(self, node: int, column: int) -> int:
        """Returns how many kept blocks lie before the begin (FIRST) or the end (LAST) of a node."""
        return int(np.searchsorted(self.places, self.page.nodes[node, column]))

    def context(self, node: int) -> Context:
        path = []
        while node not in self.contexts:
            path.append(node)
            node = int(self.page.nodes[node, PARENT])
        context = self.contexts[node]
        for node in reversed(path):
            context = self.inside(context, int(node))
            if node != path[0]:  # one entry for each parent, not for each of a million siblings
                self.contexts[int(node)] = context
        return context

    def inside(self, context: Context, node: int) -> Context:
        name = self.tag(node)
        if name in ("li", "blockquote") and len(context.marks) < DEEPEST:
            mark = "> " if name == "blockquote" else self.item_mark(node)
            return context._replace(marks=(*context.marks, (mark, node)))
        if name == "pre" and context.pre < 0:
            return context._replace(pre=node)
        if name == "table" and context.table < 0 and self.table_nodes(node) is not None:
            return context._replace(table=node)
        if name[:1] == "h" and name[1:].isdigit():
            return context._replace(heading=int(name[1:]))
        return context

    def item_mark(self, node: int) -> str:
        parent = int(self.page.nodes[node, PARENT])
        if self.tag(parent) != "ol":
            return "- "
        return f"{_number(self.attribute(parent, b'start'), 1, 0, 999_999) + self.item_ranks[node]}. "

    @cached_property
    def item_ranks(self) -> dict[int, int]:
        """By <li>, how many there are before it in its list."""
        items = np.flatnonzero(self.page.nodes[:, TAG] == NAME["li"])
        items = items[np.argsort(self.page.nodes[items, PARENT], kind="stable")]
        parents = self.page.nodes[items, PARENT]
        ranks = np.arange(len(items)) - np.searchsorted(parents, parents)
        return dict(zip(items.tolist(), ranks.tolist(), strict=True))

    # ---- Text and code

    def inlined(self, start: int, end: int, row: int | None = None) -> str:
        """Returns the text from `start` to `end` with marks for inline code and links, from the row of `inline` on."""
        row = bisect_left(self.begins, start) if row is None else row
        parts = []
        while row < len(self.begins) and self.begins[row] < end:
            _, begin, stop, which = self.inline[row].tolist()
            begin, stop, row = begin + (self.text[begin] in b" \n"), min(stop, end), row + 1
            if start <= begin < stop:
                parts.append(MARK.sub(r"\\", self.text[start:begin].decode()))
                parts.append(_code_span(self.text[begin:stop].decode()) if which == CODE else self.link(begin, stop, row))
                start = stop
        return "".join(parts) + MARK.sub(r"\\", self.text[start:end].decode())

    def link(self, begin: int, stop: int, row: int) -> str:
        text = self.inlined(begin, stop, row)
        target = (self.tree.attribute(int(self.inline[row - 1, ADDRESS]), b"href") or "").strip()
        try:
            target = urljoin(self.base or "", target) if not target.startswith(("#", "javascript:")) else ""
        except ValueError:
            target = ""
        target = IN_ADDRESS.sub(lambda found: f"%{ord(found[0]):02X}", target)
        return f"[{text}]({target})" if target else text

    def code(self, pre: int) -> str:
        """Returns a <pre> between fences, byte for byte; a line break is added where it does not end with one."""
        row = int(self.rows[pre])
        code = self.text[self.page.elements[row, FROM] : self.page.elements[row, TO]].decode()
        fence = "`" * max(3, 1 + _longest_run(code))
        code += "" if code.endswith("\n") else "\n"
        return f"{fence}{self.language(pre, row + 1)}\n{code}{fence}"

    def language(self, pre: int, row: int) -> str:
        """Returns the language of a <pre> by the classes of the element in it (at `row`), its own, and those of two nodes around it."""
        inner = self.page.elements[row] if row < len(self.page.elements) and self.page.elements[row, WHICH] == CODE else None
        names = [self.tree.attribute(int(inner[ADDRESS]), b"class") or ""] if inner is not None else []
        for _ in range(3):
            names += [self.attribute(pre, b"class")]
            pre = max(int(self.page.nodes[pre, PARENT]), 0)
        found = [match for name in names for match in LANGUAGE.findall(name) if not NO_LANGUAGE.fullmatch(match)]
        return found[0].lower() if found else ""

    # ---- Tables

    def table_nodes(self, table: int) -> list[int] | None:
        """Returns the nodes in a table, or None for one that only arranges the page."""
        nodes, first, size = self.page.nodes, table + 1, 64
        while first < len(nodes):  # its nodes follow it; twice as many are tried each time, for the sake of tables in tables
            outside = nodes[first : first + size, PARENT] < table
            last = first + int(outside.argmax()) if outside.any() else min(first + size, len(nodes))
            if np.isin(nodes[first:last, TAG], NOT_IN_TABLES).any():
                return None
            if last < first + size:
                break
            first, size = last, 2 * size
        inside = np.arange(table + 1, last if first < len(nodes) else len(nodes))
        tags = nodes[inside, TAG]
        if self.attribute(table, b"role") in ("presentation", "none"):
            return None
        cells = inside[(tags == NAME["td"]) | (tags == NAME["th"])]
        counts = np.unique(nodes[cells, PARENT], return_counts=True)[1]
        rows, widest = len(counts), int(counts.max(initial=0))
        if not np.isin(tags, OF_TABLES).any() and (rows < 2 or widest < 2 or (rows < 10 and widest <= 4 and rows * widest <= 10)):
            return None
        return [int(cell) for cell in cells]

    def put_table(self, context: Context) -> None:
        table, nodes = context.table, self.page.nodes
        first, last = self.kept_before(table, FIRST), self.kept_before(table, LAST)
        free = np.ones(last - first, np.bool_)
        rows: dict[int, list[tuple[str, int, int]]] = {}
        for cell in self.table_nodes(table) or ():
            begin, end = self.kept_before(cell, FIRST), self.kept_before(cell, LAST)
            free[begin - first : end - first] = False
            spans = (_number(self.attribute(cell, name), 1, 1, most) for name, most in ((b"colspan", WIDEST), (b"rowspan", HIGHEST)))
            rows.setdefault(int(nodes[cell, PARENT]), []).append((self.joined(self.places[begin:end]), *spans))
        for block in self.places[first:last][free]:  # the caption
            self.put(context, self.joined([block]))
        grid = _grid(list(rows.values()))
        width = max(map(len, grid))
        grid[0] += [""] * (width - len(grid[0]))
        header, *body = [f"| {' | '.join(row)} |" for row in grid]
        self.put(context, "\n".join([header, "|" + " --- |" * width, *body]))

    def joined(self, blocks: NDArray[np.int64]) -> str:
        rows = (self.page.blocks[block] for block in blocks)
        return "<br>".join(self.inlined(row[START], row[END]) for row in rows).replace("\n", "<br>").replace("|", r"\|")


def _before(marks: Iterable[tuple[str, int]]) -> str:
    """Returns what stands before a line that is not the first of an item."""
    return "".join(mark if mark == "> " else " " * len(mark) for mark, _ in marks)


def _number(text: str, default: int, least: int, most: int) -> int:
    """Returns a whole number as HTML reads it, within limits; `default` where there is none."""
    found = re.match(r"\s*\+?(\d{1,9})", text)
    return min(max(int(found[1]), least), most) if found else default


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _code_span(text: str) -> str:
    ticks = "`" * (_longest_run(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return "\n".join(f"{ticks}{space}{line}{space}{ticks}" if line else "" for line in text.split("\n"))


def _grid(rows: list[list[tuple[str, int, int]]]) -> list[list[str]]:
    """Returns the rows of a table, of cells (text, colspan, rowspan). A cell that spans several columns or rows stands in each of them."""
    cells = [cell for row in rows for cell in row]
    copies = [wide * min(high, len(rows)) for _, wide, high in cells]
    sizes = [len(text) for text, _, _ in cells]
    if sum(copies) > COPIES * len(cells) + SOME or sum(map(mul, sizes, copies)) > COPIES * sum(sizes) + 10 * SOME:
        rows = [[(text, 1, 1) for text, _, _ in row] for row in rows]
    grid: list[dict[int, str]] = [{} for _ in rows]
    for place, row in enumerate(rows):
        column = 0
        for text, wide, high in row:
            while column in grid[place]:
                column += 1
            for line in grid[place : place + high]:
                line.update(dict.fromkeys(range(column, column + wide), text))
    return [[line.get(column, "") for column in range(max(line, default=-1) + 1)] for line in grid]
