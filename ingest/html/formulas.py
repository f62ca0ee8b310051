"""Formulas of a page as LaTeX: where an element holds a formula, its LaTeX in `$` or `$$` takes the element's place in the tree.

Read are the annotations of MathML (Wikipedia, KaTeX, LaTeXML) and its attribute `alttext`, the scripts of MathJax 2 and 3, images whose
`alt` is LaTeX, elements of class `math` (Sphinx, pandoc), and AsciiMath in scripts and annotations. Other MathML is translated.
"""

import re
import unicodedata
from xml.etree import ElementTree

from corpusmill.ingest.html.asciimath import GREEK, join, to_latex
from corpusmill.ingest.html.tree import Tree

TEX = re.compile(r"(?:application|text)/x-(?:la)?tex|(?:la)?tex", re.IGNORECASE)
ASCIIMATH = re.compile(r"(?:text/x-|math/)?asciimath", re.IGNORECASE)
#: Elements around a formula that hold nothing else: of KaTeX, MediaWiki, MathJax.
WRAPPER = re.compile(r"katex(?:-\w+)?|mwe-math-[\w-]+|MathJax\w*|MJX\w*|mjx-[\w-]+")
IMAGE_CLASS = re.compile(r"(?:^|\s)(?:(?:la)?tex|math|formula(?:Inl|Dsp)|mwe-math-[\w-]+)(?:\s|$)")
IMAGE_SOURCE = re.compile(r"latex|codecogs|cht=tx|mathtex|mimetex|/math/", re.IGNORECASE)
PROSE = re.compile(r"[^\\]*\b[A-Za-z]{3,} [A-Za-z]{2,} [A-Za-z]{2,}\b[^\\]*")
DELIMITED = re.compile(r"\$\$(?P<a>.+)\$\$|\$(?P<b>[^$]+)\$|\\\[(?P<c>.+)\\\]|\\\((?P<d>.+)\\\)", re.DOTALL)
CDATA = re.compile(r"%\s*<!\[CDATA\[|%\s*\]\]>")
NAMESPACE = re.compile(rb' xmlns(?::\w+)?="[^"]*"')
#: MathML that nests more deeply is not translated.
DEEPEST = 200


def write_formulas(tree: Tree) -> None:
    """Writes every formula below the root as a text in the tree. An element whose formula is not understood stays as it is."""
    for script in tree.named(b"script"):
        kind = tree.attribute(script, b"type") or ""
        if kind.startswith("math/"):
            written = tree.text(script) or ""
            latex = to_latex(written) if ASCIIMATH.match(kind) else written if kind.startswith("math/tex") else ""
            if shown := delimited(latex, "mode=display" in kind):
                _clear_before(tree, script)
                tree.insert_before(script, shown)
    for math in tree.named(b"math"):
        element, names = _outermost(tree, math)
        display = tree.attribute(math, b"display") == "block" or "isplay" in names
        if shown := delimited(_of_math(tree.serialised(math)), display):
            tree.fill(element, shown)
    for image in tree.named(b"img"):
        alt, names = (tree.attribute(image, b"alt") or "").strip(), tree.attribute(image, b"class") or ""
        marked = IMAGE_SOURCE.search(tree.attribute(image, b"src") or "") or (IMAGE_CLASS.search(names) and not PROSE.fullmatch(alt))
        if marked or DELIMITED.fullmatch(alt) or alt.startswith(r"{\displaystyle"):
            tree.insert_before(image, delimited(alt, "isplay" in names or "Dsp" in names))
    for element in (*tree.of_class(b"math"), *tree.of_class(b"arithmatex")):
        text = (tree.text(element) or "").strip()
        if text.startswith(r"\begin{") or (text.startswith((r"\(", r"\[")) and DELIMITED.fullmatch(text)):
            tree.fill(element, delimited(text, text.startswith(r"\begin{")))


def delimited(latex: str, display: bool) -> str:
    """Returns LaTeX between `$`, or `$$` where it is displayed or was delimited so; empty where there is none.

    Spaces that mean nothing go, and so do what sets the style of the whole and the braces around a single character.
    """
    latex = CDATA.sub("", latex).strip()
    if found := DELIMITED.fullmatch(latex):
        display |= bool(found["a"] or found["c"])
        latex = next(filter(None, found.groups()))
    latex = " ".join(latex.split())
    for style in (r"\displaystyle", r"\textstyle"):
        if latex.startswith("{" + style) and _closes_at_end(latex):
            latex = latex[1:-1]
        if latex.startswith(style):
            latex = latex.removeprefix(style).lstrip()
    latex = re.sub(r"(?<!\\) ([_^])", r"\1", latex)
    latex = re.sub(r"([_^])\{(\w)\}", r"\1\2", latex, flags=re.ASCII).removesuffix("\\").strip()
    return "" if not latex else f"$${latex}$$" if display else f"${latex}$"


def _closes_at_end(latex: str) -> bool:
    """Whether the brace that opens a text is closed by its last character."""
    depth = 0
    for found in re.finditer(r"\\.|[{}]", latex):
        depth += (found[0] == "{") - (found[0] == "}")
        if depth == 0:
            return found.end() == len(latex)
    return False


def _outermost(tree: Tree, element: int) -> tuple[int, str]:
    """Returns the outermost element around a formula that holds nothing else, and the classes of all between."""
    names = ""
    while (parent := tree.parent(element)) and parent != tree.root and (classes := _wrapping(tree, parent)):
        element, names = parent, f"{names} {classes}"
    return element, names


def _wrapping(tree: Tree, element: int) -> str:
    """Returns name and classes of an element if it is a WRAPPER, else an empty text."""
    names = [tree.name(element), *(tree.attribute(element, b"class") or "").split()]
    return " ".join(names) if tree.is_element(element) and any(map(WRAPPER.fullmatch, names)) else ""


def _clear_before(tree: Tree, script: int) -> None:
    """Empties what MathJax 2 has drawn before its script."""
    while (script := tree.before(script)) and tree.is_element(script) and _wrapping(tree, script):
        tree.fill(script, "")


def _of_math(serialised: bytes) -> str:
    """Returns the LaTeX of an element <math>; empty if it is not understood."""
    try:
        math = ElementTree.fromstring(NAMESPACE.sub(b"", serialised).replace(b"&nbsp;", b"\xc2\xa0"))
    except ElementTree.ParseError:
        return ""
    for note in math.iter("annotation"):
        encoding, text = note.get("encoding", ""), "".join(note.itertext())
        if TEX.fullmatch(encoding):
            return text
        if ASCIIMATH.fullmatch(encoding):
            return to_latex(text)
    return math.get("alttext", "").strip() or _translated(math, DEEPEST)


# ---- MathML to LaTeX

OPERATORS = dict(
    pair.split(":")
    for pair in r"≠:\ne ≤:\le ≥:\ge ∞:\infty ∑:\sum ∏:\prod ∫:\int ∮:\oint ∂:\partial ∇:\nabla ±:\pm ∓:\mp ×:\times ÷:\div ⋅:\cdot "
    r"·:\cdot ∗:* −:- →:\to ←:\leftarrow ↔:\leftrightarrow ⇒:\Rightarrow ⇐:\Leftarrow ⇔:\Leftrightarrow ⟺:\iff ⟹:\implies ↦:\mapsto "
    r"∈:\in ∉:\notin ⊂:\subset ⊆:\subseteq ⊃:\supset ⊇:\supseteq ∪:\cup ∩:\cap ∖:\setminus ∅:\emptyset ∀:\forall ∃:\exists ¬:\neg "
    r"∧:\wedge ∨:\vee ⊕:\oplus ⊗:\otimes ∘:\circ ≈:\approx ≡:\equiv ∼:\sim ≅:\cong ∝:\propto ≪:\ll ≫:\gg ⟨:\langle ⟩:\rangle "
    r"⌊:\lfloor ⌋:\rfloor ⌈:\lceil ⌉:\rceil ∥:\| ‖:\| …:\ldots ⋯:\cdots ⋮:\vdots ⋱:\ddots ′:' ″:'' ℝ:\mathbb{R} ℕ:\mathbb{N} ℤ:\mathbb{Z} "
    r"ℚ:\mathbb{Q} ℂ:\mathbb{C} ℏ:\hbar ℓ:\ell {:\{ }:\} %:\% #:\# &:\& †:\dagger ⊥:\perp ∣:\mid ϕ:\phi φ:\varphi ϵ:\epsilon ε:\varepsilon ϑ:\vartheta".split()
)
ACCENTS = {
    "^": r"\hat", "ˆ": r"\hat", "¯": r"\bar", "‾": r"\overline", "→": r"\vec", "⃗": r"\vec", "~": r"\tilde", "˜": r"\tilde", "˙": r"\dot",
    ".": r"\dot", "¨": r"\ddot", "ˇ": r"\check", "⏞": r"\overbrace", "⏟": r"\underbrace", "_": r"\underline", "―": r"\overline",
}  # fmt: skip
#: By element, its LaTeX from that of its children.
FORMS = {
    "msup": "{{{0}}}^{{{1}}}", "mover": "{{{0}}}^{{{1}}}", "msub": "{{{0}}}_{{{1}}}", "munder": "{{{0}}}_{{{1}}}",
    "msubsup": "{{{0}}}_{{{1}}}^{{{2}}}", "munderover": "{{{0}}}_{{{1}}}^{{{2}}}", "mfrac": r"\frac{{{0}}}{{{1}}}",
    "mroot": r"\sqrt[{1}]{{{0}}}",
}  # fmt: skip


def _translated(element: ElementTree.Element, deepest: int) -> str:
    """Returns the LaTeX of presentation MathML; empty if it nests too deeply or has no form in LaTeX."""
    if not deepest:
        return ""
    name, children = element.tag, list(element)[: 1 if element.tag == "semantics" else None]
    if name in ("mi", "mo", "mn", "mtext", "ms"):
        text = " ".join("".join(element.itertext()).split())
        return f"\\text{{{text}}}" if text and name in ("mtext", "ms") else _token(text)
    parts = [_translated(child, deepest - 1) for child in children]
    if name in ("munder", "mover") and len(parts) == 2 and (accent := ACCENTS.get("".join(children[1].itertext()).strip())):
        return f"{accent}{{{parts[0]}}}"
    if name in FORMS:
        latex = re.sub(r"\{([^{}\\]|\\[a-zA-Z]+)\}(?=[_^])", r"\1", FORMS[name].format(*parts, "", "", ""))
        return re.sub(r"\^\{('+)\}", r"\1", latex)
    if name == "mtable":
        return r"\begin{matrix}" + r" \\ ".join(parts) + r"\end{matrix}"
    if name == "mfenced":
        return f"{element.get('open', '(')}{','.join(parts)}{element.get('close', ')')}"
    inner = " & ".join(parts) if name == "mtr" else join(parts)
    return f"\\sqrt{{{inner}}}" if name == "msqrt" else inner


def _token(text: str) -> str:
    """Returns the LaTeX of an identifier, an operator or a number."""
    if len(text) > 1 and text.isascii() and text.isalpha():
        return f"\\{text}" if text in FUNCTIONS else f"\\mathrm{{{text}}}"
    return join(list(map(_character, text)))


def _character(character: str) -> str:
    if character in OPERATORS:
        return OPERATORS[character]
    name = unicodedata.name(character, "")
    if name.startswith("GREEK ") and (letter := name.rpartition(" ")[2].lower().replace("lamda", "lambda")):
        letter = letter.capitalize() if " CAPITAL " in name else letter
        return f"\\{letter}" if letter in GREEK else character
    return "" if unicodedata.category(character) == "Cf" else character


FUNCTIONS = set("sin cos tan cot sec csc sinh cosh tanh exp log ln lim max min sup inf det dim gcd arg deg ker".split())
