"""Removes characters that no file can hold, and measures characters that a wrong encoding made."""

import re

#: The bytes 0x80 to 0x9F as windows-1252 decodes them, and as latin-1 does (C1 controls).
LOW = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ\x80-\x9f"
#: Those of them that never come after a letter in undamaged text.
ODD = "€ƒ†‡ˆ‰ŠŒŽ˜™šœžŸ\x80-\x84\x86-\x9f"
REST = LOW + "\xa0-\xbf"  # every continuation byte
SEQUENCE = f"[\xc6-\xdf][{REST}]|[\xe0-\xef][{REST}]{{2}}|[\xf0-\xf4][{REST}]{{3}}"
#: The pattern begins with one set of characters, which the regex engine searches at some hundred million characters a second.
MOJIBAKE = re.compile(
    "[\xc2-\xf4\ufffd\x80-\x84\x86-\x9f](?:"
    "(?<=[\ufffd\x80-\x9f])"  # by itself; a C1 control (but NEL) is windows-1252 read as latin-1
    f"|(?<=[\xc2-\xc5])[{REST}]"  # U+0080 to U+017F: Western and Central European letters and signs
    f"|(?<=\xe2)[{LOW}][{REST}]"  # U+2000 to U+27FF: quotes, dashes, arrows, bullets
    f"|(?<=\xe1)[\xba\xbb][{REST}]"  # U+1E80 to U+1EFF: Vietnamese
    f"|(?<=\xef)[\xbb-\xbf][{REST}]"  # U+FEC0 to U+FFFF: byte order mark, wide forms, U+FFFD itself
    f"|(?<=\xf0)[\u0178\x9f][{REST}]{{2}}"  # U+1F000 to U+1FFFF: emoji
    f"|(?<=[\xc6-\xdf])[{ODD}]"
    # other scripts: one such sequence is also `Spaß“` or `été »`, two in a row are not
    f"|(?:(?<=[\xc6-\xdf])[{REST}]|(?<=[\xe0-\xef])[{REST}]{{2}}|(?<=[\xf0-\xf4])[{REST}]{{3}})(?:{SEQUENCE})+"
    ")"
)
SURROGATES = re.compile("[\ud800-\udfff]")


def storable(text: str) -> str:
    """Returns `text` without NUL characters and lone surrogates, which neither Parquet nor a tokenizer can hold."""
    if "\0" in text:
        text = text.replace("\0", "")
    try:
        text.encode()
    except UnicodeEncodeError:
        return SURROGATES.sub("", text)
    return text


def mojibake_rate(text: str) -> float:
    """Returns the share of characters (0 to 1) that a wrong encoding made; 0.0 for an empty text.

    It counts U+FFFD, C1 controls but NEL, and the characters of sequences that are UTF-8 decoded as windows-1252 or
    latin-1 (`Ã©`, `â€™`): a lead byte with its continuation bytes. Sequences that undamaged text may hold by chance
    (a letter before a quotation mark) count only where two or more follow each other. UTF-8 decoded as other encodings
    (`РџСЂРёРІРµС‚`, windows-1251) does not count.
    """
    if not text or text.isascii():
        return 0.0
    return sum([found.end() - found.start() for found in MOJIBAKE.finditer(text)]) / len(text)
