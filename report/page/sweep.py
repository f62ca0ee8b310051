"""Writes a sweep as a self-contained page with a chart: the shares of documents and characters that each threshold keeps."""

from corpusmill.filters.whatif import Sweep
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.page.figures import sweep_figure
from corpusmill.report.page.page import whole_page


def write_sweep(result: Sweep, path: str) -> None:
    """Writes the page of a sweep. Raises InputError if the file can't be written."""
    from markupsafe import Markup

    shares = [
        (f"{what}, {how}", [100 * getattr(row, f"{key}_{what}") / whole if whole else 0 for row in result.rows])
        for how, key in (("this rule alone", "alone"), ("all rules", "together"))
        for what, whole in (("documents", result.documents), ("characters", result.characters))
    ]
    chart = sweep_figure([row.threshold for row in result.rows], shares, result.now)
    title = safe_line(f"{result.rule}: fails where {result.column} {result.comparison} threshold", 300)
    body = Markup('<main id="main" tabindex="-1"><h1>{0}</h1><figure class="spaced">'
                  '<div class="chart" data-figure="0" role="img" aria-label="{0}"></div></figure></main>').format(title)  # fmt: skip
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(whole_page(title, body, [chart]))
    except OSError as error:
        raise InputError(f"--plot {path}: can't be written ({error.strerror}).") from error
