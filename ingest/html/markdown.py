"""The kept blocks of a page as Markdown: the text of `main_text.render` with marks for headings, items, quotes, tables, code and links."""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from operator import mul
from typing import NamedTuple
from urllib.parse import urljoin

import numpy as np
from numpy.typing import NDArray

from corpusmill.ingest.html.metadata import LONGEST_NAME
from corpusmill.ingest.html.tags import HINT_NAMES, NAME
from corpusmill.ingest.html.thread import Thread
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import ADDRESS, CODE, END, FIRST, FROM, ITEM, LAST, NODE, OWN_HINTS, PARENT, START, TAG, TO, WHICH, Page

#: Marks of nested items and quotes before a line, at most; deeper ones are left out.
DEEPEST = 16
#: What a line of text may not begin with, because it would be read as a mark.
MARK = re.compile(r"^(?=#{1,6}\s|```|~~~|[-=_*]{3,}\s*$)", re.MULTILINE)
#: The language of code in the class of an element, and what stands there without being one.
LANGUAGE = re.compile(
    r"(?:^|\s)(?:language|lang|highlight-source|highlight|brush:|sourceCode|hljs|src)(?:-|\s+)(?!lang)([A-Za-z][\w+#.-]*)"
)
NO_LANGUAGE = re.compile(r"source|notranslate|default|none|text|plain\w*|nohighlight|code|hljs|copy|wrapper|output", re.IGNORECASE)
#: A grid may have COPIES times as many cells and characters as its table, and SOME more; else each cell stands once, without its spans.
COPIES, SOME = 4, 64
#: What would end the address of a link.
IN_ADDRESS = re.compile(r"[\s()<>]")
#: The largest colspan and rowspan of HTML.
WIDEST, HIGHEST = 1000, 65534
H1, H6, LI, OL, QUOTE, PRE, TABLE, TFOOT, TD, TH = (NAME[name] for name in "h1 h6 li ol blockquote pre table tfoot td th".split())
#: In threads, elements with this hint and such a class quote: `quote`, `bbCodeBlock--quote`, but not `selectToQuote`.
QUOTED, QUOTES = 1 << HINT_NAMES.index("quote"), re.compile(r"(?:^|[\s_-])(?:block)?quote")
#: Elements that tell a table from a layout, and those that a cell of a table can't hold.
OF_TABLES, NOT_IN_TABLES = (
    {NAME[name] for name in names.split()} for names in ("caption colgroup tfoot thead th", "table pre h1 h2 h3 h4 h5 h6")
)


class Context(NamedTuple):
    """What lies around a block. `marks`: what stands before its lines, from the left: a mark and its node."""

    marks: tuple[tuple[str, int], ...] = ()
    heading: int = 0
    pre: int = -1
    table: int = -1


class Markdown:
    """Writes the kept blocks of a page, which was walked with `structure`, as Markdown. `base`: the page's URL if links are written.
    Each post of a thread begins with a line of its author and date."""

    def __init__(self, tree: Tree, page: Page, kept: NDArray[np.bool_], base: str | None, thread: Thread):
        self.tree, self.page, self.base, self.thread, self.headed = tree, page, base, thread, set[int]()
        self.text = page.text.tobytes()
        places = np.flatnonzero(kept)
        self.places = places.data  # views: their items are plain numbers, and a million of them take no objects
        self.node, self.start, self.end, self.item = (page.blocks[places, column].data for column in (NODE, START, END, ITEM))
        self.tags, self.parents, self.first, self.last = (page.nodes[:, column].copy().data for column in (TAG, PARENT, FIRST, LAST))
        self.quotes = set(np.flatnonzero(page.nodes[:, TAG] == QUOTE).tolist())
        which = page.elements[:, WHICH]
        self.rows = np.flatnonzero(which >= 0)  # of the nodes from 1 on
        self.inline = page.elements[which == CODE if base is None else which < 0].tolist()
        self.begins = [row[FROM] for row in self.inline]
        hinted = np.flatnonzero(page.nodes[:, OWN_HINTS] & QUOTED).tolist() if thread.posts else []
        self.quotes.update(node for node in hinted if QUOTES.search(self.attribute(node, b"class")))
        self.contexts, self.tables = {-1: Context()}, dict[int, list[int]]()  # by table, its cells
        self.opened = set[int]()  # items whose mark is written
        self.counts, self.numbers = dict[int, int](), dict[int, int]()  # by <ol>, the last number; by <li>, its own
        self.out: list[str] = []
        self.before, self.before_tight = Context(), False  # of the last lines

    def write(self) -> str:
        place = 0
        while place < len(self.places):
            node = self.node[place]
            context = self.context(node)
            if self.thread.posts and self.put_post(node, self.text[self.start[place] : self.end[place]].decode()):
                place += 1
            elif context.pre >= 0:
                self.put(self.context(context.pre), self.code(context.pre))
                place = bisect_left(self.places, self.last[context.pre])
            elif context.table >= 0:
                self.put_table(self.context(context.table))
                place = bisect_left(self.places, self.last[context.table])
            else:
                text = self.inlined(self.start[place], self.end[place])
                if context.heading:
                    text = "#" * context.heading + " " + text.replace("\n", " ")
                self.put(context, text, bool(self.item[place]) or self.tags[node] == LI)
                place += 1
        return "".join(self.out)

    def put_post(self, node: int, text: str) -> bool:
        """Adds the line of author and date before the first block of a post. Returns whether a block says no more than this line."""
        post = self.thread.post_of[node]
        author, date = self.thread.posts.get(post, ("", ""))
        if (author or date) and post not in self.headed:
            self.headed.add(post)
            self.put(Context(), f"**{', '.join(filter(None, (author, date)))}**")
        text = " ".join(text.split())
        return text in self.thread.said or (author != "" and author in text and len(text) < len(author) + LONGEST_NAME)

    def put(self, context: Context, text: str, tight: bool = False) -> None:
        """Adds lines of Markdown below those that are written; no blank line separates two `tight` ones."""
        marks, before = context.marks, self.before.marks
        if self.out:
            shared = [mark for mark, last in zip(marks, before, strict=False) if mark == last]
            self.out.append("\n" if tight and self.before_tight else f"\n{_continued(shared).rstrip()}\n")
        self.before, self.before_tight = context, tight
        if marks:
            rest = _continued(marks)
            first = "".join(_continued([mark]) if mark[1] in self.opened else mark[0] for mark in marks)
            self.opened.update(node for _, node in marks)
            head, *lines = text.split("\n")
            text = "\n".join([first + head, *(rest + line if line else rest.rstrip() for line in lines)])
        self.out.append(text)

    # ---- What lies around a block

    def attribute(self, node: int, name: bytes) -> str:
        return (self.tree.attribute(int(self.page.elements[self.rows[node - 1], ADDRESS]), name) or "") if node > 0 else ""

    def context(self, node: int) -> Context:
        path = []
        while node not in self.contexts:
            path.append(node)
            node = self.parents[node]
        context = self.contexts[node]
        for node in reversed(path):
            context = self.inside(context, node)
            if node != path[0]:  # one entry for each parent, not for each of a million siblings
                self.contexts[node] = context
        return context

    def inside(self, context: Context, node: int) -> Context:
        tag = self.tags[node]
        if (tag == LI or node in self.quotes) and len(context.marks) < DEEPEST:
            return context._replace(marks=(*context.marks, (self.item_mark(node) if tag == LI else "> ", node)))
        if tag == PRE and context.pre < 0:
            return context._replace(pre=node)
        if tag == TABLE and context.table < 0 and (cells := self.cells(node)):
            self.tables[node] = cells
            return context._replace(table=node)
        return context._replace(heading=tag - H1 + 1) if H1 <= tag <= H6 else context

    def item_mark(self, node: int) -> str:
        """Returns what begins an item; the kept items of an <ol> are numbered in their order."""
        parent = self.parents[node]
        if self.tags[parent] == OL and node not in self.numbers:
            self.counts[parent] = self.counts.get(parent, _number(self.attribute(parent, b"start"), 0, 999_999) - 1) + 1
            self.numbers[node] = self.counts[parent]
        return f"{self.numbers[node]}. " if node in self.numbers else "- "

    # ---- Text and code

    def inlined(self, start: int, end: int, row: int | None = None) -> str:
        """Returns the text from `start` to `end` with marks for inline code and links, from the row of `inline` on."""
        row = bisect_left(self.begins, start) if row is None else row
        parts = []
        while row < len(self.begins) and self.begins[row] < end:
            _, begin, stop, which = self.inline[row]
            begin, stop, row = begin + (self.text[begin] in b" \n"), min(stop, end), row + 1
            if start <= begin < stop:
                parts.append(_escaped(self.text[start:begin].decode()))
                parts.append(_code_span(self.text[begin:stop].decode()) if which == CODE else self.link(begin, stop, row))
                start = stop
        return "".join(parts) + _escaped(self.text[start:end].decode())

    def link(self, begin: int, stop: int, row: int) -> str:
        text = self.inlined(begin, stop, row)
        target = (self.tree.attribute(self.inline[row - 1][ADDRESS], b"href") or "").strip()
        try:
            target = urljoin(self.base or "", target) if not target.startswith(("#", "javascript:")) else ""
        except ValueError:
            target = ""
        target = IN_ADDRESS.sub(lambda found: f"%{ord(found[0]):02X}", target)
        return f"[{text}]({target})" if target else text

    def code(self, pre: int) -> str:
        """Returns a <pre> between fences, byte for byte; a line break is added where it does not end with one."""
        row = int(self.rows[pre - 1])
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
            pre = max(self.parents[pre], 0)
        found = [match for name in names for match in LANGUAGE.findall(name) if not NO_LANGUAGE.fullmatch(match)]
        return found[0].lower() if found else ""

    # ---- Tables

    def cells(self, table: int) -> list[int]:
        """Returns the cells of a table; none for one that only arranges the page (after Readability's `_markDataTables`)."""
        cells, sure, node = [], False, table + 1
        while node < len(self.tags) and self.parents[node] >= table:  # the nodes in a node follow it
            tag = self.tags[node]
            if tag in NOT_IN_TABLES:
                return []
            if tag in (TD, TH):
                cells.append(node)
            sure |= tag in OF_TABLES
            node += 1
        if not cells or self.attribute(table, b"role") in ("presentation", "none"):
            return []
        columns = Counter(self.parents[cell] for cell in cells)
        rows, widest = len(columns), max(columns.values())
        return cells if sure or (rows > 1 and widest > 1 and (rows >= 10 or widest > 4 or rows * widest > 10)) else []

    def put_table(self, context: Context) -> None:
        first, last = (bisect_left(self.places, ends[context.table]) for ends in (self.first, self.last))
        captions, rows, done = list[int](), dict[int, list[tuple[str, int, int]]](), first
        for cell in self.tables[context.table]:
            begin, end = (bisect_left(self.places, ends[cell]) for ends in (self.first, self.last))
            captions += range(done, begin)
            done = max(done, end)
            wide, high = (_number(self.attribute(cell, name), 1, most) for name, most in ((b"colspan", WIDEST), (b"rowspan", HIGHEST)))
            rows.setdefault(self.parents[cell], []).append((self.joined(range(begin, end)), wide, high))
        grid = _grid([rows[row] for row in sorted(rows, key=lambda row: self.tags[self.parents[row]] == TFOOT)])
        width = max(map(len, grid), default=0)
        for place in range(first, last) if width < 2 else (*captions, *range(done, last)):
            self.put(context, self.inlined(self.start[place], self.end[place]))
        if width > 1:
            grid[0] += [""] * (width - len(grid[0]))
            head, *body = (f"| {' | '.join(row)} |" for row in grid)
            self.put(context, "\n".join([head, "|" + " --- |" * width, *body]))

    def joined(self, places: Iterable[int]) -> str:
        texts = (self.inlined(self.start[place], self.end[place]) for place in places)
        return "<br>".join(texts).replace("\n", "<br>").replace("|", r"\|")


def _continued(marks: Iterable[tuple[str, int]]) -> str:
    """Returns what stands before a line that does not begin an item."""
    return "".join(mark if mark == "> " else " " * len(mark) for mark, _ in marks)


def _number(text: str, least: int, most: int) -> int:
    """Returns a whole number as HTML reads it, within limits; 1 where there is none."""
    found = re.match(r"\s*\+?(\d{1,9})", text)
    return min(max(int(found[1]), least), most) if found else 1


def _escaped(text: str) -> str:
    return MARK.sub(r"\\", text) if text[:1] in "#`~-=_*" or "\n" in text else text


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _code_span(text: str) -> str:
    if "`" not in text and "\n" not in text:
        return f"`{text}`"
    ticks = "`" * (_longest_run(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return "\n".join(f"{ticks}{space}{line}{space}{ticks}" if line else "" for line in text.split("\n"))


def _grid(rows: list[list[tuple[str, int, int]]]) -> list[list[str]]:
    """Returns the rows of a table, of cells (text, colspan, rowspan). A cell that spans several columns or rows stands in each of them.

    Rows and columns without text are left out. Rows end with their last cell.
    """
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
    filled = sorted({column for line in grid for column, text in line.items() if text})
    return [[line.get(column, "") for column in filled[: bisect_right(filled, max(line))]] for line in grid if any(line.values())]
