"""Tests threads: posts in their order, each with author and date, quotes marked, without buttons and signatures."""

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.pages import extract_page

TEXTS = [
    "I replaced the pump of my boiler last week, and since then the pressure falls by half a bar every day. What could it be?",
    "Look at the expansion vessel first. If its membrane is broken, water comes out of the valve when you press it.",
    "That was it, there was water in the valve. The new vessel cost forty euros, and the pressure has been steady since.",
]
QUOTE = "Since then the pressure falls by half a bar every day, and I do not know what it could be."
NAMES = ["anna_k", "Old Plumber", "anna_k"]


def post(number: int, inside: str = "") -> str:
    """A post as XenForo and phpBB write it; `inside`: an answer that is nested in it."""
    return f"""<article class="message message--post"><div class="message-cell"><a class="avatar username">A</a>
      <h4 class="message-name"><a class="username">{NAMES[number]}</a></h4></div>
      <div class="message-main"><header><time datetime="2024-03-0{number + 1}T10:00:00">day {number}</time></header>
      <div class="message-body">{f'<div class="bbCodeBlock--quote">{QUOTE}</div>' if number == 1 else ""}
      <p>{TEXTS[number]}</p></div><div class="signature"><p>My signature has a link to my shop of fine brass fittings.</p></div>
      <div class="actions"><button>Reply</button> <a href="#">Like</a></div>{inside}</div></article>"""


def page(posts: str) -> str:
    online = "".join(f'<li class="user"><a class="username">guest{number}</a></li>' for number in range(9))
    return f"""<html><head><title>Boiler loses pressure | Heating forum</title><meta name="generator" content="XenForo"></head>
      <body><nav><a href="/">Forums</a> <a href="/new">New posts</a></nav><h1>Boiler loses pressure</h1>
      <main>{posts}</main><aside><h3>Online</h3><ul>{online}</ul></aside></body></html>"""


def test_posts_of_a_thread() -> None:
    expected = (
        f"**anna_k, 2024-03-01**\n\n{TEXTS[0]}\n\n**Old Plumber, 2024-03-02**\n\n> {QUOTE}\n\n{TEXTS[1]}\n\n"
        f"**anna_k, 2024-03-03**\n\n{TEXTS[2]}"
    )
    for html in (page(post(0) + post(1) + post(2)), page(post(0, inside=post(1, inside=post(2))))):  # in a row, and nested
        found = extract_page(html, "https://forum.heating.test/threads/boiler.123/", ExtractionConfig(format="markdown"))
        assert found.page_type == "forum"
        assert found.text[found.text.index("**") :] == expected
        assert found.plain is not None and "signature" not in found.plain and "**" not in found.plain
