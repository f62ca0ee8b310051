"""The two tables of the walk over a page: names of elements, and words in class names.

The name of an element decides whether its content is dropped, whether it is a block element, and its role. Words in `class`, `id`, `role`
and `itemprop` only give hints (`HINTS`), one bit each, which the scorer weighs.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# ---- kinds of elements: how they are walked -------------------------------------------------------------
INLINE, BLOCK, DROP, RAW, VOID, BREAK, LINK, BOLD = range(8)

KINDS = {
    # RAW content is not escaped by a serializer, so it is skipped by looking for the end tag
    RAW: "script style iframe noembed noframes xmp plaintext",
    DROP: "head template svg object canvas select datalist textarea button audio video map annotation annotation-xml dialog",
    VOID: "area base basefont bgsound col embed frame img input keygen link meta param source track wbr",
    BREAK: "br",
    LINK: "a",
    BOLD: "b strong",
    BLOCK: "html body div p section article main header footer aside nav ul ol li dl dt dd table thead tbody tfoot tr td th caption "
    "h1 h2 h3 h4 h5 h6 blockquote pre figure figcaption form fieldset legend address hr details summary center menu dir listing hgroup "
    "search frameset optgroup option colgroup noscript",
}

UNNUMBERED = "annotation"

# ---- names that matter beyond their kind ------------------------------------------------------------------
#: The elements that features and rendering distinguish, by their numbers; all other elements have number 0.
NAMES = (
    "", "p", "div", "li", "td", "th", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "dt", "dd", "figcaption",
    "article", "main", "section", "header", "footer", "aside", "nav", "ul", "ol", "form", "table", "body", "html", "address",
    "figure", "dl", "hr", "caption", "summary", "a", "br", "center", "script", "time",
    "code", "kbd", "samp", "tt", "img", "math", "colgroup", "thead", "tfoot",
)  # fmt: skip
NAME = {name: number for number, name in enumerate(NAMES)}

#: By hint: the words in names that give it, and the elements that give it (`<nav>`). There can be 64 hints at most.
HINTS = {
    "comment": "comment comments commentlist commentary disqus respond reply replies discussion kommentar kommentare commentaires "
    "comentarios leserkommentare reactions",
    "share": "share sharing shares social socials sharebar sharethis addthis addtoany facebook twitter whatsapp linkedin pinterest "
    "reddit follow shariff xing teilen partager compartir sns",
    "nav": "nav navigation navbar menu menus submenu menubar navi mainnav topnav subnav tabs tab navlist sitenav",
    "breadcrumb": "breadcrumb breadcrumbs crumb crumbs brotkrumen breadcrumblist",
    "footer": "footer foot colophon fuss bottom pagefooter sitefooter contentinfo",
    "sidebar": "sidebar sidebars aside rail secondary rightcol leftcol rightcolumn leftcolumn seitenleiste complementary marginal",
    "related": "related recommended recommendation recommendations recirc more morefrom readmore readnext similar popular trending "
    "mostread latest outbrain taboola next previous prev verwandt weitere mehr meistgelesen empfehlungen trends suggestions upnext also "
    "relacionados similaires zergnet",
    "ad": "ad ads adv advert adverts advertisement advertising sponsor sponsored sponsors promo promos promotion promoted banner "
    "banners werbung anzeige anzeigen adsense dfp gpt affiliate commercial reklame publicite publicidad",
    "cookie": "cookie cookies consent gdpr privacy datenschutz cmp ccpa dsgvo onetrust cookiebar",
    "subscribe": "newsletter newsletters subscribe subscription subscriptions subscriber signup register registration paywall mailchimp "
    "optin abo abonnieren premium abonnement donate donation spenden",
    "author": "author authors byline bylines bio autor autoren writer profile avatar vcard contributor verfasser auteur",
    "date": "date dates time datetime timestamp meta metadata published posted postmeta entrymeta datum dateline publish updated pubdate",
    "tag": "tag tags category categories topics keywords kategorie kategorien schlagworte labels taxonomy tagcloud taglist",
    "image": "caption captions credit credits bildunterschrift image images img picture pictures photo photos figure gallery slideshow "
    "slider carousel bild bilder thumbnail thumb thumbs wp-caption lightbox",
    "video": "video videos player audio podcast youtube vimeo embed jwplayer",
    "content": "content contents inhalt maincontent contenido contenu",
    "article": "article articles story stories news entry post hentry artikel beitrag blog blogpost",
    "body": "body text copy articlebody entrycontent postcontent storybody richtext rte wysiwyg prose paragraph bodytext articletext "
    "fliesstext postbody markdown",
    "main": "main primary hauptinhalt mainbody",
    "title": "title titles headline headlines heading headings hed titel ueberschrift subject",
    "header": "header headers head masthead topbar top hero kopf pageheader siteheader banner",
    "widget": "widget widgets module modules plugin portlet gadget",
    "box": "box boxes panel panels block blocks container wrapper",
    "modal": "modal modals popup popups overlay overlays dialog tooltip dropdown drawer toast alert alerts notification notifications",
    "account": "login logout signin account user users member members anmelden password",
    "search": "search suche searchform searchbox recherche buscar",
    "pager": "pagination pager paging pagenav pagelinks pages",
    "toc": "toc tableofcontents outline",
    "list": "list lists listing items item grid archive feed stream",
    "card": "card cards teaser teasers tile tiles preview excerpt snippet promo",
    "hidden": "hidden hide invisible sr screenreader visuallyhidden offscreen noprint none assistive",
    "legal": "legal copyright disclaimer terms impressum imprint license licence rights",
    "intro": "intro lead lede summary abstract standfirst dek deck subtitle subheadline subhead kicker vorspann chapo",
    "quote": "quote quotes pullquote zitat",
    "button": "button buttons btn cta link links action actions toolbar tools tool print email",
    "form": "form forms input field fields contact kontakt",
    "rating": "rating ratings stars review reviews votes vote likes like",
    "shop": "product products price prices cart shop basket warenkorb checkout shipping buy",
    "code": "code highlight syntax sourcecode codeblock",
    "infobox": "infobox factbox info note notes hint warning admonition",
    "footnote": "footnote footnotes references reflist citation citations refs bibliography",
    "forum": "forum thread message messages",
    # hints from elements alone
    "in_article": "<article>", "in_main": "<main>", "in_header": "<header>", "in_footer": "<footer>", "in_aside": "<aside>",
    "in_nav": "<nav>", "in_form": "<form>", "in_figure": "<figure>", "in_table": "<table>", "in_list": "<ul> <ol> <dl> <menu>",
    "in_quote": "<blockquote>", "in_section": "<section>", "in_noscript": "<noscript>",
}  # fmt: skip
HINT_NAMES = tuple(HINTS)
#: The bit of words that name a signature, and these words. It is no feature.
SIGNATURE, SIGNATURES = len(HINTS), ("signature", "signatures", "sig")

FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
_MASK = (1 << 64) - 1


def fnv1a(name: bytes) -> int:
    """Returns the 64-bit FNV-1a (Fowler, Noll, Vo), the hash by which the kernels look words up."""
    value = FNV_OFFSET
    for byte in name:
        value = (value ^ byte) * FNV_PRIME & _MASK
    return value


def _insert(table: NDArray[np.uint64], word: str) -> NDArray[np.uint64]:
    """Inserts a word into a hash table (open addressing), unless it is there; returns its row. The first column is the hash (0: empty)."""
    key = np.uint64(fnv1a(word.encode()))
    place = int(key) & (len(table) - 1)
    while table[place, 0] not in (0, key):
        place = (place + 1) & (len(table) - 1)
    table[place, 0] = key
    return table[place]


def build_words() -> NDArray[np.int64]:
    """Returns the hash table of words for the kernels: rows of (hash, hints)."""
    words = np.zeros((2048, 2), np.uint64)
    for bit, hint in enumerate(HINTS.values()):
        for word in hint.split():
            if not word.startswith("<"):
                _insert(words, word)[1] |= np.uint64(1 << bit)
    for word in SIGNATURES:
        _insert(words, word)[1] |= np.uint64(1 << SIGNATURE)
    return words.view(np.int64)


def build_tags(tag_ids: Callable[[list[str]], list[int]]) -> NDArray[np.int64]:
    """Returns rows of (kind, number in `NAMES`, hints, hash of the name), by the parser's number of an element.

    `tag_ids` returns these numbers for names. The last row is for UNNUMBERED, the only element here for which the parser has no number.
    """
    kinds = {name: kind for kind, names in KINDS.items() for name in names.split()}
    hints = [(word.strip("<>"), bit) for bit, hint in enumerate(HINTS.values()) for word in hint.split() if word.startswith("<")]
    names = sorted({*kinds, *filter(None, NAMES), *(name for name, _ in hints)})
    ids = {name: number for name, number in zip(names, tag_ids(names)) if name != UNNUMBERED}
    rows = np.zeros((max(ids.values()) + 2, 4), np.int64)
    for name, number in ids.items():
        rows[number] = kinds.get(name, INLINE), NAME.get(name, 0), 0, np.uint64(fnv1a(name.encode())).astype(np.int64)
    rows[-1, 0] = kinds[UNNUMBERED]
    for name, bit in hints:
        rows[ids[name], 2] |= 1 << bit
    return rows
