"""Makes self-contained pages from templates, scripts, styles and charts. A page loads nothing.

Crawl text enters a page only through Jinja's autoescape or as JSON with `<` escaped (charts). The content security policy names the
page's own scripts and styles by their sha256; the browser refuses all others.
"""

import base64
import hashlib
import json
import re
from functools import cache
from importlib import resources
from typing import Any

from corpusmill.filters.language_codes import named
from corpusmill.pipeline.safe import safe_line, safe_text
from corpusmill.report.queries import classifiers as measures
from corpusmill.report.tables import number

#: The page's styles and scripts, in order.
STYLES = ("theme.css", "report.css")
SCRIPTS = ("navigation.js", "tables.js", "plot.js", "charts.js", "sliders.js")
_JOINT = re.compile(r"([_/-]|(?<!\d)\.)(?=\w)")
_SECTION = re.compile(r'<h2 id="([\w-]+)">(.*?)</h2>', re.DOTALL)


@cache  # it keeps the compiled templates: to compile them takes half a second
def templates(longest: int = 700) -> Any:
    """Returns the jinja2.Environment of this folder, which escapes text. `longest`: characters that the filter `text` keeps."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("corpusmill.report.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["line"] = lambda value, limit=200: safe_line(str(value), limit)
    environment.filters["words"] = words
    environment.filters["language"] = lambda code: words(named(code))
    environment.filters["text"] = lambda value, limit=longest: safe_text(str(value), limit)
    environment.filters |= {"measure": measures.value, "interval": measures.interval, "ends": measures.ends}
    environment.filters["share"] = lambda part, whole: f"{part / whole:.1%}" if whole else "–"
    return environment


def words(value: Any, limit: int = 200) -> Any:
    """Returns a name as escaped HTML in one line, which may break after `_`, `.`, `/` and `-`, so that nothing else of it breaks."""
    from markupsafe import Markup, escape

    return Markup(_JOINT.sub(r"\1<wbr>", str(escape(safe_line(str(value), limit)))))


def whole_page(title: str, body: str, figures: list[dict[str, Any]]) -> str:
    """Returns a whole page around a rendered body. The body refers to charts by their place in `figures`."""
    from markupsafe import Markup

    theme = _asset("theme.js")  # runs before the first paint
    scripts, styles = [*map(_asset, SCRIPTS)], [*map(_asset, STYLES)]
    return str(
        templates().get_template("page.html.jinja").render(
            title=title,
            policy=policy([theme, *scripts], styles),
            theme=Markup(theme),
            styles=[Markup(style) for style in styles],
            scripts=[Markup(script) for script in scripts],
            figures=Markup(script_json(figures)),
            sections=sections(body),
            body=Markup(body),
        )
    )  # fmt: skip


def sections(body: str) -> list[tuple[str, str]]:
    """Returns (id, title) of each section of a rendered body, for the navigation."""
    from markupsafe import Markup

    return [(found[1], Markup(found[2]).striptags()) for found in _SECTION.finditer(body)]


def _asset(name: str) -> str:
    return resources.files("corpusmill.report.page").joinpath(name).read_text("utf-8")


def _source(content: str) -> str:
    """Returns the content security policy's source expression for one inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def policy(scripts: list[str], styles: list[str]) -> str:
    """Returns the page's content security policy: only its own scripts and styles, nothing remote."""
    return (
        f"default-src 'none'; script-src {' '.join(map(_source, scripts))}; style-src {' '.join(map(_source, styles))}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def script_json(value: Any) -> str:
    """Returns JSON for a `script` element: without `<`, so that no tag or comment can begin in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")
