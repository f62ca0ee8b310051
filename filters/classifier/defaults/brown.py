"""Texts of the Brown Corpus (Francis & Kučera 1961), whose words carry tags: `The/at jury/nn said/vbd ./.`"""

import re

#: Spaces that no text has.
TIGHT = re.compile(r" ([.,;:!?)\]])|([(\[]) ")


def brown_text(tagged: str) -> str:
    """A text without its tags, one paragraph a line; marks stand at the words that they belong to."""
    paragraphs = re.split(r"\n\s*\n(?=\t)", tagged.strip("\n"))
    return "\n\n".join(text for paragraph in paragraphs if (text := _joined(paragraph.split())))


def _joined(tokens: list[str]) -> str:
    text = " ".join(token.rpartition("/")[0] for token in tokens if "/" in token)
    return TIGHT.sub(lambda match: match[1] or match[2], text.replace("`` ", '"').replace(" ''", '"'))
