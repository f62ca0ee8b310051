# mypy: disallow-untyped-defs=False
"""The type of a page: trees on values of its blocks, its repeated structure, its URL and its data for machines."""

import math
import re
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from corpusmill.ingest.html.repeated import ALL, H1, H6, OF_ALL, OF_LINKS, PROSE, RECORD_NAMES, WITH_END, of_record
from corpusmill.ingest.html.tags import HINT_NAMES, NAME
from corpusmill.ingest.html.walk import CHARS, DEPTH, HINTS, NODE, OWN_HINTS, TAG
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.schemas import PageType
from corpusmill.text.buffers import borrowed
from corpusmill.text.byte_masks import lowest_bit

#: The types, as WCXB defines them. A collection shows products of a shop, a listing any other items; a service is what an organisation
#: says of itself and its offers.
TYPES: tuple[str, ...] = get_args(PageType)

#: Words of URLs, by the type that they speak for: 1 is added for one in the path, 2 for one in the host.
URL_WORDS = {
    "forum": "forum forums thread threads topic topics t viewtopic showthread discussion discussions community board boards question "
    "questions answers comments r",
    "documentation": "docs doc documentation api reference manual guide guides wiki readthedocs developer developers dev learn tutorial "
    "tutorials help support kb sdk spec rst",
    "product": "product products p item items shop store dp sku buy itm pd goods prod",
    "collection": "collection collections category categories c cat shop catalog plp browse department departments all",
    "listing": "search list listing listings jobs events directory archive archives tag tags page browse index find results blog news "
    "category topics",
    "article": "blog blogs news article articles story stories post posts magazine",
    "service": "service services solutions solution about pricing platform features feature industries product consulting home programs "
    "program our",
}
_URL_WORDS = [frozenset(words.split()) for words in URL_WORDS.values()]
#: Types of JSON-LD (schema.org).
SCHEMAS = (
    "DiscussionForumPosting QAPage Question Answer Comment", "Product ProductGroup Offer AggregateOffer ProductModel",
    "Article NewsArticle BlogPosting Report ReportageNewsArticle", "ItemList CollectionPage SearchResultsPage OfferCatalog ListItem",
    "TechArticle APIReference HowTo SoftwareSourceCode", "Service LocalBusiness ProfessionalService FAQPage SoftwareApplication",
    "Organization Corporation", "Review AggregateRating", "WebPage", "BreadcrumbList", "VideoObject", "Person",
)  # fmt: skip
_SCHEMAS = [frozenset(names.encode().split()) for names in SCHEMAS]
SCHEMA = re.compile(rb'"@type"\s*:\s*\[?\s*"(?:https?://schema\.org/)?(\w+)"')
#: Types of Open Graph, and programs that make pages, in `og:type` and `generator`.
OPEN_GRAPH = ("article", "website", "product", "object", "blog", "profile", "video")
GENERATORS = (
    "discourse", "phpbb", "vbulletin|xenforo|invision|vanilla|mybb|smf|flarum", "wordpress",
    "docusaurus|sphinx|mkdocs|hugo|jekyll|vuepress|vitepress|gitbook|mintlify|doxygen|javadoc", "mediawiki",
    "shopify|woocommerce|magento|prestashop|bigcommerce", "wix|squarespace|webflow|hubspot|elementor", "drupal|joomla|typo3",
)  # fmt: skip
_GENERATORS = [re.compile(pattern) for pattern in GENERATORS]
URL = re.compile(r"^[a-z][a-z0-9+.-]*://([^/?#]*)([^?#]*)(\?)?")
LETTERS = re.compile(r"[a-z]+")
BETWEEN = re.compile(r" [|\-–—:·»] ")
#: What is longer is cut.
URL_CHARS, LINKED_BYTES = 2000, 200_000

STATED = (
    *(f"url_{name}" for name in URL_WORDS), "url_parts", "url_digits", "url_chars", "url_dot", "url_query", "host_dots", "url_dashes",
    *(f"schema_{names.split()[0]}" for names in SCHEMAS), *(f"og_{name}" for name in OPEN_GRAPH), "og_none",
    *(f"generator_{names.split('|')[0]}" for names in GENERATORS), "log_linked_data", "offers", "title_words", "title_parts",
)  # fmt: skip


def stated_values(url: str | None, metas: dict[str, str], title: str | None, linked_data: list[bytes]) -> NDArray[np.float32]:
    """Returns what URL, metas, title and scripts of JSON-LD say of the page's type: STATED."""
    found = URL.match((url or "")[:URL_CHARS].lower())
    host, path, query = (found.group(1), found.group(2), found.group(3)) if found else ("", "", None)
    in_path, in_host = set(LETTERS.findall(path)), set(LETTERS.findall(host))
    parts = [part for part in path.split("/") if part]
    last = parts[-1] if parts else ""
    data = b" ".join(script[:LINKED_BYTES] for script in linked_data)
    schemas = set(SCHEMA.findall(data))
    kind, generator, title = metas.get("og:type", "").lower(), metas.get("generator", "").lower(), title or ""
    values = [
        *(bool(words & in_path) + 2 * bool(words & in_host) for words in _URL_WORDS),
        len(parts), sum(c.isdigit() for c in path), len(path), "." in last, query is not None, host.count("."), last.count("-"),
        *(bool(names & schemas) for names in _SCHEMAS), *(name in kind for name in OPEN_GRAPH), not kind,
        *(bool(pattern.search(generator)) for pattern in _GENERATORS),
        math.log1p(len(data)), b'"offers"' in data, len(title.split()), len(BETWEEN.split(title)),
    ]  # fmt: skip
    return np.array(values, np.float32)


_SHARES = np.array([NAME[name] for name in ("p", "li", "td", "dd", "pre", "div")], np.int32)
H2 = H1 + 1
_WHOLE = ("log_blocks", "log_chars", "prose", "linked", "mean_log_chars", "ends", "depth", "h1s", "h2s", "headings")
#: The values on which the type is decided. `largest`: the group of records with the most characters. `held`: the share of characters
#: under the hint; `named`: the share of nodes with it.
PAGE_NAMES = (
    *_WHOLE, *(f"share_{name}" for name in ("p", "li", "td", "dd", "pre", "div")), *(f"largest_{name}" for name in RECORD_NAMES),
    *(f"held_{hint}" for hint in HINT_NAMES), *(f"named_{hint}" for hint in HINT_NAMES), *STATED,
)  # fmt: skip
_LARGEST = len(_WHOLE) + len(_SHARES)
_HELD = _LARGEST + len(RECORD_NAMES)
_NAMED = _HELD + len(HINT_NAMES)
_STATED = _NAMED + len(HINT_NAMES)


@kernel
def page_values(page, context, stated):
    """Returns the values PAGE_NAMES of a page, float32. `stated`: see `stated_values`."""
    out = np.zeros(len(PAGE_NAMES), np.float32)
    _fill(borrowed(page.blocks), borrowed(page.nodes), borrowed(context.sums), context.repeated, out)
    out[_STATED:] = stated
    return out


@kernel
def _fill(blocks, nodes, sums, repeated, out):
    count, total = len(blocks), sums[-1, ALL]
    out[0], out[1] = math.log1p(count), math.log1p(total)
    out[2], out[3], out[5] = sums[-1, PROSE] / total, sums[-1, OF_LINKS] / total, sums[-1, WITH_END] / count
    under, named = np.zeros(64), np.zeros(64)
    for block in range(count):
        node, chars = blocks[block, NODE], blocks[block, CHARS]
        tag, share = nodes[node, TAG], chars / total
        out[4] += math.log1p(chars) / count
        out[6] += nodes[node, DEPTH] * share
        if H1 <= tag <= H6:
            out[7] += tag == H1
            out[8] += tag == H2
            out[9] += share
        for place in range(len(_SHARES)):
            if tag == _SHARES[place]:
                out[len(_WHOLE) + place] += share
        _add_bits(nodes[node, HINTS], share, under)
    for node in range(1, len(nodes)):
        _add_bits(nodes[node, OWN_HINTS], 1 / len(nodes), named)
    for hint in range(len(HINT_NAMES)):
        out[_HELD + hint], out[_NAMED + hint] = under[hint], named[hint]
    records, largest = repeated.records, -1
    for group in range(len(records.sums)):
        if largest < 0 or records.sums[group, OF_ALL + ALL] > records.sums[largest, OF_ALL + ALL]:
            largest = group
    for node in range(1, len(nodes) if largest >= 0 else 0):
        if records.ids[node] == largest:
            of_record(out, _LARGEST, records, node, nodes, sums)
            break


@kernel(inline="always")
def _add_bits(bits, value, out):
    left = np.uint64(bits)
    while left:
        out[lowest_bit(left)] += value
        left &= left - np.uint64(1)
