"""Tests formulas by source, AsciiMath by expressions of its grammar, and a page of Wikipedia against its own annotations."""

import re
from pathlib import Path

import lxml.html
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html.asciimath import to_latex
from corpusmill.ingest.pages import extract_page

SIGMA = "{\\displaystyle \\sigma ^{2}}"
WIKIPEDIA = (
    f'<span class="mwe-math-element"><span class="mwe-math-mathml-inline" style="display: none;"><math alttext="{SIGMA}"><semantics>'
    f'<msup><mi>σ</mi><mn>2</mn></msup><annotation encoding="application/x-tex">{SIGMA}</annotation></semantics></math></span>'
    f'<img src="/media/math/render/svg/1" class="mwe-math-fallback-image-inline" alt="{SIGMA}"></span>'
)
KATEX = (
    '<span class="katex-display"><span class="katex"><span class="katex-mathml"><math><semantics><mi>x</mi><annotation '
    'encoding="application/x-tex">x_{i} &lt; 1</annotation></semantics></math></span><span class="katex-html"><span>x i < 1</span></span>'
    "</span></span>"
)
MATHJAX_2 = (
    '<span class="MathJax_Preview">[math]</span><span class="MathJax"><nobr><span class="math">x2</span></nobr></span>'
    '<script type="math/tex">x^2</script>'
)
MATHJAX_3 = (
    '<mjx-container class="MathJax"><mjx-math><mjx-c></mjx-c></mjx-math><mjx-assistive-mml><math><mfrac><mi>a</mi><msqrt><mn>10</mn>'
    "</msqrt></mfrac><mo>≤</mo><msubsup><mi>b</mi><mi>i</mi><mn>2</mn></msubsup></math></mjx-assistive-mml></mjx-container>"
)


@pytest.mark.parametrize(
    ("html", "latex"),
    [
        (WIKIPEDIA, "$\\sigma^2$"),
        (KATEX, "$$x_i < 1$$"),
        (MATHJAX_2, "$x^2$"),
        ('<script type="math/tex; mode=display">% <![CDATA[\na &= b % ]]></script>', "$$a &= b$$"),
        (MATHJAX_3, "$\\frac{a}{\\sqrt{10}}≤b_i^2$"),
        ('<math display="block" alttext="\\frac{1}{2}"><mfrac><mn>1</mn><mn>2</mn></mfrac></math>', "$$\\frac{1}{2}$$"),
        ('<math><semantics><mi>x</mi><annotation encoding="text/x-asciimath">x/2</annotation></semantics></math>', "$\\frac{x}{2}$"),
        ('<script type="math/asciimath">sqrt(x)</script>', "$\\sqrt{x}$"),
        ('<img class="formulaDsp" alt="\\[ x \\]" src="form_1.png">', "$$x$$"),
        ('<img src="https://s0.wp.com/latex.php?latex=n" class="latex" alt="n">', "$n$"),
        ('<img class="math" src="_images/math/1.png" alt="s_{i}">', "$s_i$"),
        ('<span class="math notranslate">\\(a_{1}\\)</span>', "$a_1$"),
        ('<div class="math">\n\\begin{align}a\\end{align}</div>', "$$\\begin{align}a\\end{align}$$"),
        ('<img class="math" alt="The math teacher and the class">', ""),
        ('<img src="latex-gloves.jpg" alt="Latex gloves"><script type="math/tex">{\\textstyle a}+{b}</script>', "${\\textstyle a}+{b}$"),
        ('<math><mi>x</mi><annotation encoding="application/x-tex"> </annotation></math>', "$x$"),
        ("<math>" + "<msqrt>" * 300 + "x" + "</msqrt>" * 300 + "</math>", "x"),
    ],
)
def test_sources(html: str, latex: str) -> None:
    for format in ("text", "markdown"):
        config = ExtractionConfig(format=format, main_content=False)
        text = extract_page(f"<p>It is {html}, so.</p>", None, config).text
        assert "".join(text.split()) == "".join(f"It is {latex}, so.".split()), format


@pytest.mark.parametrize(
    ("source", "latex"),
    [
        ("sum_(i=1)^n i^3=((n(n+1))/2)^2", r"\sum_{i=1}^ni^3=\left(\frac{n\left(n+1\right)}{2}\right)^2"),
        ("x = (-b +- sqrt(b^2-4ac))/(2a)", r"x=\frac{-b\pm\sqrt{b^2-4ac}}{2a}"),
        ("sin(x)/cos(x) != f(x)/2", r"\frac{\sin\left(x\right)}{\cos\left(x\right)}\ne\frac{f\left(x\right)}{2}"),
        ("[[a,f(b)],[c,d]]", r"\left[\begin{matrix}a & f\left(b\right) \\ c & d\end{matrix}\right]"),
        ("{(x, if x>0),(y, otherwise):}", r"\left\{\begin{matrix}x & \text{~if~}x>0 \\ y & \text{~otherwise~}\end{matrix}\right."),
        ('AA x in RR: root(3)(vec x) ~~ "so" text(it is)', r"\forall x\in\mathbb{R}:\sqrt[3]{\vec{x}}\approx\text{so}\text{it is}"),
        ("x/y/z ( a_", r"\frac{x}{y}/z\left(a_{}\right."),
        ("(" * 9000, ""),
        ("x" * 20_000, ""),
    ],
)
def test_asciimath(source: str, latex: str) -> None:
    assert to_latex(source) == latex


def bare(latex: str) -> str:
    """Returns LaTeX without white space, the style of the whole, and braces around single characters."""
    latex = re.sub(r"\{([A-Za-z0-9])\}", r"\1", re.sub(r"\s", "", re.sub(r"^\{\\displaystyle\b(.*)\}$", r"\1", latex.strip())))
    return latex.removesuffix("\\")


def test_a_page_of_wikipedia(shared_data: Path) -> None:
    with open(shared_data / "realweb/readability.warc.gz", "rb") as file:
        records = ArchiveIterator(file, WarcRecordType.response)
        page = next(r.reader.read().decode() for r in records if r.headers["WARC-Target-URI"].endswith("/wikipedia-3"))
    known = [bare(element.text) for element in lxml.html.document_fromstring(page.encode()).xpath("//annotation")]
    text = extract_page(page, None, ExtractionConfig(main_content=False)).text
    found = [bare(latex or line) for line, latex in re.findall(r"\$\$(.+?)\$\$|\$(.+?)\$", text)]
    assert found == known and len(known) == 66
