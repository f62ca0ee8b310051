"""AsciiMath to LaTeX, after the grammar on asciimath.org.

S is a simple expression: a symbol, an expression E in brackets, a unary symbol with S, or a binary one with two. I is S with S below or
above it. E is a sequence of I, or of fractions I/I.
"""

import re
from collections.abc import Container

#: Symbols with the same name in LaTeX. FUNCTIONS and what follows them are one simple expression; after `f` and `g` only brackets.
_FUNCTIONS = "sin cos tan sec csc cot sinh cosh tanh coth arcsin arccos arctan exp log ln det dim gcd min max"
_SAME = f"""
    {_FUNCTIONS} alpha beta gamma Gamma delta Delta epsilon varepsilon zeta eta theta Theta vartheta iota kappa lambda Lambda mu nu xi Xi pi
    Pi rho sigma Sigma tau upsilon phi Phi varphi chi psi Psi omega Omega sum prod int oint lim cdots ddots vdots ldots setminus therefore
    because angle triangle diamond square aleph nabla partial subset supset subseteq supseteq prec succ preceq succeq equiv cong approx
    propto neg forall exists vdash models bot top wedge vee cap cup times div circ oplus otimes odot pm mp uparrow downarrow rightarrow
    leftarrow leftrightarrow Rightarrow Leftarrow Leftrightarrow to mapsto emptyset ne le ge in notin infty quad qquad
""".split()
_OTHER = r"""
    * \cdot ** \ast *** \star // / xx \times -: \div @ \circ o+ \oplus ox \otimes o. \odot ^^ \wedge ^^^ \bigwedge vv \vee vvv \bigvee
    nn \cap nnn \bigcap uu \cup uuu \bigcup != \ne <= \le >= \ge lt < gt > -< \prec >- \succ -<= \preceq >-= \succeq !in \notin
    sub \subset sup \supset sube \subseteq supe \supseteq -= \equiv ~= \cong ~~ \approx prop \propto and \text{~and~} or \text{~or~}
    if \text{~if~} otherwise \text{~otherwise~} not \neg => \Rightarrow implies \Rightarrow <=> \Leftrightarrow iff \Leftrightarrow
    AA \forall EE \exists _|_ \bot TT \top |-- \vdash |== \models del \partial grad \nabla +- \pm -+ \mp O/ \emptyset oo \infty ... \ldots
    :. \therefore :' \because /_ \angle /_\ \triangle CC \mathbb{C} NN \mathbb{N} QQ \mathbb{Q} RR \mathbb{R} ZZ \mathbb{Z} f f g g
    dx dx dt dt uarr \uparrow darr \downarrow rarr \rightarrow -> \to larr \leftarrow harr \leftrightarrow rArr \Rightarrow lArr \Leftarrow
    hArr \Leftrightarrow |-> \mapsto >-> \rightarrowtail ->> \twoheadrightarrow mod \bmod |__ \lfloor __| \rfloor |~ \lceil ~| \rceil
    % \% # \# & \& $ \$
""".split()
FUNCTIONS = {*_FUNCTIONS.split(), "f", "g"}
SYMBOLS = {name: f"\\{name}" for name in _SAME} | dict(zip(_OTHER[::2], _OTHER[1::2], strict=True))
UNARY = {
    "sqrt": r"\sqrt{%s}", "hat": r"\hat{%s}", "bar": r"\overline{%s}", "overline": r"\overline{%s}", "ul": r"\underline{%s}",
    "vec": r"\vec{%s}", "dot": r"\dot{%s}", "ddot": r"\ddot{%s}", "tilde": r"\tilde{%s}", "abs": r"\left|%s\right|",
    "floor": r"\left\lfloor %s\right\rfloor", "ceil": r"\left\lceil %s\right\rceil", "norm": r"\left\|%s\right\|",
    "ubrace": r"\underbrace{%s}", "obrace": r"\overbrace{%s}", "cancel": r"\cancel{%s}", "bb": r"\mathbf{%s}", "bbb": r"\mathbb{%s}",
    "cc": r"\mathcal{%s}", "tt": r"\mathtt{%s}", "fr": r"\mathfrak{%s}", "sf": r"\mathsf{%s}", "text": r"\text{%s}", "mbox": r"\text{%s}",
}  # fmt: skip
BINARY = {
    "frac": r"\frac{%s}{%s}", "root": r"\sqrt[%s]{%s}", "stackrel": r"\overset{%s}{%s}", "overset": r"\overset{%s}{%s}",
    "underset": r"\underset{%s}{%s}",
}  # fmt: skip
LEFT = {"(": "(", "[": "[", "{": r"\{", "(:": r"\langle ", "<<": r"\langle ", "{:": "."}
RIGHT = {")": ")", "]": "]", "}": r"\}", ":)": r"\rangle ", ">>": r"\rangle ", ":}": "."}
_NAMES = sorted([*SYMBOLS, *UNARY, *BINARY, *LEFT, *RIGHT], key=len, reverse=True)
TOKEN = re.compile(r'(?:text|mbox)\(([^()]*)\)|"([^"]*)"|(\d+(?:\.\d+)?|' + "|".join(map(re.escape, _NAMES)) + r"|\S)")
#: A longer text is no formula.
LONGEST = 10_000


def to_latex(source: str) -> str:
    """Returns AsciiMath as LaTeX; empty where it nests too deeply or is too long."""
    found = TOKEN.findall(source.strip().strip("`")) if len(source) <= LONGEST else ()
    tokens = [token or f'"{text or quoted}' for text, quoted, token in found]
    try:
        return join(_Parser(tokens[::-1]).expression()).strip()
    except RecursionError:
        return ""


def join(parts: list[str]) -> str:
    """Joins LaTeX; a space ends a command before a letter."""
    texts = [""]
    for part in filter(None, parts):
        ends_command = part[:1].isalpha() and re.search(r"\\[a-zA-Z]+$", texts[-1])
        texts += [" ", part] if ends_command else [part]
    return "".join(texts)


class _Parser:
    """Reads the tokens, which lie in reverse order; a quoted text begins with a quote."""

    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.rows = dict[str, str]()  # by LaTeX, of a list in brackets: its LaTeX as a row of a matrix

    def take(self, texts: Container[str]) -> bool:
        """Takes the next token if it is one of `texts`."""
        return bool(self.next_is(texts) and self.tokens.pop())

    def next_is(self, texts: Container[str]) -> bool:
        return bool(self.tokens) and self.tokens[-1] in texts

    def expression(self, ends: Container[str] = ()) -> list[str]:
        parts = []
        while self.tokens and not self.next_is(ends):
            part, inner = self.scripted()
            if self.take("/"):
                part = rf"\frac{{{inner}}}{{{self.scripted()[1]}}}"
            parts.append(part)
        return parts

    def scripted(self) -> tuple[str, str]:
        """Returns I, and I without its brackets if it is nothing but an expression in brackets."""
        whole, inner = self.simple()
        for sign in "_^":
            if self.take(sign):
                script = self.simple()[1]
                whole = inner = f"{whole}{sign}{script if re.fullmatch('[a-zA-Z0-9]', script) else '{' + script + '}'}"
        return whole, inner

    def simple(self) -> tuple[str, str]:
        text = self.tokens.pop() if self.tokens else ""
        if text in LEFT:
            return self.bracketed(LEFT[text])
        whole = rf"\text{{{text[1:]}}}" if text[:1] == '"' else SYMBOLS.get(text, RIGHT.get(text, text))
        if text in UNARY or text in BINARY:
            whole = UNARY[text] % self.simple()[1] if text in UNARY else BINARY[text] % (self.simple()[1], self.simple()[1])
        elif text in FUNCTIONS and not self.next_is(("^", "_", "/", *RIGHT)) and (len(text) > 1 or self.next_is(LEFT)):
            whole = join([whole, self.simple()[0]])
        return whole, whole

    def bracketed(self, left: str) -> tuple[str, str]:
        parts = self.expression(RIGHT)
        right, inner = RIGHT[self.tokens.pop()] if self.tokens else ".", join(parts)
        if len(parts) > 2 and {*parts[1::2]} == {","} and {*parts[::2]} <= self.rows.keys():  # [[a, b], [c, d]]
            inner = r"\begin{matrix}" + r" \\ ".join(self.rows[part] for part in parts[::2]) + r"\end{matrix}"
        whole = rf"\left{left}{inner}\right{right}"
        self.rows[whole] = join([" & " if part == "," else part for part in parts])
        return whole, inner
