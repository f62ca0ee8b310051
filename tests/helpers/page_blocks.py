"""Pages as the HTML walk sees them, and fragments of markup to build pages from."""

from hypothesis import strategies as st

from corpusmill.ingest.html.main_text import tables
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import END, START, Page, walk

MARKUP = st.lists(
    st.sampled_from(
        [
            *("<p>", "</p>", "<div class='a b'>", "</div>", "<a href='x'>", "</a>", "<b>", "</b>", "<ul>", "<li>", "</ul>"),
            *("<pre>", "</pre>"),
            *("<table>", "<tr>", "<td>", "</table>", "<br>", "</br>", "<script>", "</script>", "<style>", "</style>", "<select>"),
            *("<svg>", "</svg>", "<!--", "-->", "&lt;", "&", "&amp;nbsp;", "<", ">", '"', "=", "'", "word", "\u00e9\u4e2d", " ", "\n"),
            *("<h2 id='\"'>", "</h2>", "<textarea>", "</textarea>", "<p =x '\"=1>", "<math><mi>", "</math>"),
        ]
    ),
    max_size=60,
)  # fmt: skip


def walked(html: str) -> Page:
    with Tree(html.encode()) as tree:
        return walk(tree.root, *tables(), 1000, False)


def texts(page) -> list[str]:
    data = page.text.tobytes()
    return [data[block[START] : block[END]].decode() for block in page.blocks]
