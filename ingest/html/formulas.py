"""Formulas of a page as LaTeX: where an element holds a formula, a text with its LaTeX between `$` or `$$` takes its place in the tree.

Read are the annotations of MathML (Wikipedia, KaTeX, LaTeXML) and its attribute `alttext`, the scripts of MathJax 2 and 3, images whose
`alt` is LaTeX, elements of class `math` (Sphinx, pandoc), and AsciiMath in scripts and annotations.
"""

import re
from itertools import accumulate
from xml.etree import ElementTree

from corpusmill.ingest.html.asciimath import FUNCTIONS, join, to_latex
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import FORMULAS, Page

TEX, ASCIIMATH = re.compile(r"(?:\w+/x-)?(?:la)?tex", re.IGNORECASE), re.compile(r"(?:text/x-|math/)?asciimath", re.IGNORECASE)
#: Elements around a formula that hold nothing else: of KaTeX, MediaWiki, MathJax.
WRAPPER = re.compile(r"katex(?:-\w+)?|mwe-math-[\w-]+|MathJax\w*|MJX\w*|mjx-[\w-]+")
IMAGE_CLASS = re.compile(r"(?:^|\s)(?:(?:la)?tex|math|formula(?:Inl|Dsp)|mwe-math-[\w-]+)(?:\s|$)")
IMAGE_SOURCE = re.compile(r"latex\.(?:php|cgi|codecogs)|/latex/?\?|cht=tx|math(?:tex|jax)\.cgi|mimetex|/math/render/|_images/math/")
#: The `alt` of another image with such a class.
PROSE = re.compile(r"[^\\]*\b[A-Za-z]{3,} [A-Za-z]{2,} [A-Za-z]{2,}\b[^\\]*")
DELIMITED = re.compile(r"\$\$(?P<a>.+)\$\$|\$(?P<b>[^$]+)\$|\\\[(?P<c>.+)\\\]|\\\((?P<d>.+)\\\)", re.DOTALL)
STYLED, BRACES = re.compile(r"\{\s*\\(?:display|text)style\b(.*)\}"), {"{": 1, "}": -1}
CDATA = re.compile(r"%\s*<!\[CDATA\[|%\s*\]\]>")
NAMESPACE = re.compile(rb' xmlns(?::\w+)?="[^"]*"')
#: MathML that nests more deeply stays as it is.
DEEPEST = 200


def write_formulas(tree: Tree, page: Page) -> bool:
    """Writes the formulas of a page into its tree; returns False if it has none. A formula that is not understood stays as it is."""
    if not page.marks[FORMULAS, 0]:
        return False
    for script in tree.named(b"script"):
        kind, written = tree.attribute(script, b"type") or "", tree.text(script) or ""
        latex = to_latex(written) if ASCIIMATH.match(kind) else written if kind.startswith("math/tex") else ""
        if shown := delimited(latex, "mode=display" in kind):
            drawn = script
            while (drawn := tree.before(drawn)) and _wrapping(tree, drawn):  # by MathJax 2
                tree.fill(drawn, "")
            tree.insert_before(script, shown)
    for math in tree.named(b"math"):
        element, names = math, ""
        while (parent := tree.parent(element)) != tree.root and (classes := _wrapping(tree, parent)):
            element, names = parent, f"{names} {classes}"
        if shown := delimited(_of_math(tree.serialised(math)), tree.attribute(math, b"display") == "block" or "isplay" in names):
            tree.fill(element, shown)
    for image in tree.named(b"img"):
        alt, names = (tree.attribute(image, b"alt") or "").strip(), tree.attribute(image, b"class") or ""
        marked = IMAGE_SOURCE.search(tree.attribute(image, b"src") or "") or (IMAGE_CLASS.search(names) and not PROSE.fullmatch(alt))
        if marked or DELIMITED.fullmatch(alt) or alt.startswith(r"{\displaystyle"):
            tree.insert_before(image, delimited(alt, "isplay" in names or "Dsp" in names))
    for element in (*tree.named(b"math", True), *tree.named(b"arithmatex", True)):
        text = (tree.text(element) or "").strip()
        if text.startswith(r"\begin{") or (text.startswith((r"\(", r"\[")) and DELIMITED.fullmatch(text)):
            tree.fill(element, delimited(text, text.startswith(r"\begin{")))
    return True


def delimited(latex: str, display: bool) -> str:
    """Returns LaTeX between `$`, or `$$` where it is displayed or was delimited so; empty where there is none.

    Spaces that mean nothing go, and so do what sets the style of the whole and the braces around a single character.
    """
    latex = CDATA.sub("", latex).strip()
    if found := DELIMITED.fullmatch(latex):
        display |= bool(found["a"] or found["c"])
        latex = next(filter(None, found.groups()))
    latex = " ".join(latex.split())
    if (styled := STYLED.fullmatch(latex)) and all(accumulate(map(BRACES.get, re.sub(r"\\.|[^{}]", "", styled[1])), initial=1)):
        latex = styled[1]
    latex = re.sub(r"^\s*\\(?:display|text)style\b", "", latex)
    latex = re.sub(r"([_^])\{([A-Za-z0-9])\}", r"\1\2", re.sub(r"(?<!\\) ([_^])", r"\1", latex)).removesuffix("\\").strip()
    return "" if not latex else f"$${latex}$$" if display else f"${latex}$"


def _wrapping(tree: Tree, node: int) -> str:
    """Returns name and classes of an element if it is a WRAPPER, else an empty text."""
    names = [name, *(tree.attribute(node, b"class") or "").split()] if (name := tree.name(node)) else []
    return " ".join(names) if any(map(WRAPPER.fullmatch, names)) else ""


def _of_math(serialised: bytes) -> str:
    """Returns the LaTeX of an element <math>; empty if it is not understood."""
    try:
        math = ElementTree.fromstring(NAMESPACE.sub(b"", serialised).replace(b"&nbsp;", b"\xc2\xa0"))
        for note in math.iter("annotation"):
            encoding, text = note.get("encoding", ""), "".join(note.itertext())
            if text.strip() and (TEX.fullmatch(encoding) or ASCIIMATH.fullmatch(encoding)):
                return text if TEX.fullmatch(encoding) else to_latex(text)
        return math.get("alttext", "").strip() or _translated(math, DEEPEST)
    except (ElementTree.ParseError, RecursionError):
        return ""


#: By element of MathML, its LaTeX from that of its children.
FORMS = {
    "msup": "{{{0}}}^{{{1}}}", "mover": r"\overset{{{1}}}{{{0}}}", "msub": "{{{0}}}_{{{1}}}", "munder": "{{{0}}}_{{{1}}}",
    "msubsup": "{{{0}}}_{{{1}}}^{{{2}}}", "munderover": "{{{0}}}_{{{1}}}^{{{2}}}", "mfrac": r"\frac{{{0}}}{{{1}}}",
    "mroot": r"\sqrt[{1}]{{{0}}}",
}  # fmt: skip


def _translated(element: ElementTree.Element, deepest: int) -> str:
    """Returns the LaTeX of MathML without annotation, with its symbols as they are. Raises RecursionError if it nests too deeply."""
    if not deepest:
        raise RecursionError
    name, children = element.tag, list(element)[: 1 if element.tag == "semantics" else None]
    if name in ("mi", "mo", "mn", "mtext", "ms"):
        text = " ".join("".join(element.itertext()).split())
        word = name in ("mtext", "ms") or (len(text) > 1 and text.isalpha())
        return f"\\{text}" if text in FUNCTIONS and len(text) > 1 else f"\\text{{{text}}}" if text and word else text
    parts = [_translated(child, deepest - 1) for child in children]
    if name in FORMS:
        return re.sub(r"\{([^{}\\])\}(?=[_^])", r"\1", FORMS[name].format(*parts, "", "", ""))
    if name == "mtable":
        return r"\begin{matrix}" + r" \\ ".join(parts) + r"\end{matrix}"
    inner = " & ".join(parts) if name == "mtr" else join(parts)
    return f"\\sqrt{{{inner}}}" if name == "msqrt" else inner
