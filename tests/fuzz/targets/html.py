"""Fuzzes HTML to text and Markdown: valid Unicode, no NUL, no spaces at its ends, no row of empty lines, no more text than the page has,
and plain text that does not depend on the format.
"""

from targets.ingest_file import PAGE

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html import TooDeep
from corpusmill.ingest.pages import extract_page, warm_up
from corpusmill.text.damage import storable

CONFIGS = [
    ExtractionConfig(),
    ExtractionConfig(main_content=False, comments=True),
    ExtractionConfig(main_content=False, format="markdown", links=True),
]


def seeds() -> list[bytes]:
    warm_up(CONFIGS[0])  # compiles kernels that are not in numba's cache
    return [
        PAGE,
        b"<table><tr><td>a<td>b<tr><th colspan=2>c</table><ul><li>x<li>y<ol><li>z</ol></ul><pre> kept\n  so </pre>",
        b'<html><head><meta property="og:title" content="T"><link rel=canonical href="/x"><script type="application/ld+json">'
        b'{"@type":"Article","datePublished":"2026-01-01","author":{"name":"A"}}</script></head><article><h1>H</h1><p>One<br>two</article>',
        b"<div class=comments><p>A comment</div><nav><a href=/>home</a></nav><main><p>&amp;&#x1F600;&nbsp;&bogus;<!-- c --></main>",
        b"<svg><foreignObject><p>in</p></foreignObject></svg><template><p>t</template><noscript><p>n</noscript><textarea><p>",
        b"<p><math alttext=x><semantics><msup><mi>x</mi><mn>2</mn></msup><annotation encoding=application/x-tex>{\\displaystyle x^{2}}"
        b"</annotation></semantics></math><script type='math/tex; mode=display'>a_{i}</script><img class=tex alt='\\(b\\)'>",
        b"<script type=math/asciimath>sum_(i=1)^n [[a,b],[c,d]]/2</script><div class=math>\\[z\\]</div><math><mfrac><mi>a</mi><mn>1</mn>",
        b"<table><tr><th colspan=2>a<th rowspan=3>b<tr><td>c<td>d|e</table><ol start=7><li>f<pre class=lang-c>\n g```\n</pre></ol>"
        b"<blockquote><code>h`</code> <a href=/i>j</a></blockquote><h2>k</h2>",
        b"<frameset><frame></frameset>" + b"<div>" * 300 + b"deep",
    ]


def fuzz(data: bytes) -> None:
    html = storable(data.decode("utf-8", "replace"))
    for config in CONFIGS:
        try:
            found = extract_page(html, "http://host.test/a/", config)
        except TooDeep:
            return
        for text in (found.text, found.title, found.author, found.date, found.canonical_url):
            assert "\0" not in (text or "")
            (text or "").encode()
        if config.format == "markdown":
            assert found.plain == extract_page(html, None, config.model_copy(update={"format": "text"})).text
            assert len(found.text) <= 32 * len(html) + 2000, "more text than its marks and spans could say"
            continue
        assert found.text == found.text.strip()
        assert "\n\n\n" not in found.text or "<pre" in html.lower(), "empty lines outside of a pre"
        assert len(found.text) <= 8 * len(html) + 64, "more text than the page could say"
