"""Functional test cases for toxicity in the manner of HateCheck (Röttger et al. 2021): texts that a word list judges wrongly.

Each functionality is a set of templates written for this project; slurs come from surge_profanity at run time, so this file has none. Cases
share their words and differ in meaning. A classifier may be trained on `package://contrasts.jsonl`, whose templates are different: a
test compares them.
"""

import csv
from pathlib import Path
from typing import NamedTuple

GROUPS = ("women", "gay people", "trans people", "black people", "disabled people", "Muslims", "immigrants", "Jews", "Roma", "old people")


class Case(NamedTuple):
    functionality: str
    text: str
    toxic: int


#: Functionality: whether it is toxic, and templates. {g} is a group, {s} a slur, {ss} two of one.
TEMPLATES: dict[str, tuple[int, tuple[str, ...]]] = {
    "derogation": (1, ("I can't stand {g}.", "{g} are disgusting vermin.", "{g} are worth less than dirt.", "I really despise {g}.")),
    "threat": (1, ("Somebody should shoot all {g}.", "I will hurt {g} if I see them here.", "{g} ought to be beaten up.")),
    "exclusion": (1, ("We don't want {g} in our town.", "{g} should not be allowed to vote.", "Never trust {g}, they only lie.")),
    "denied respect": (1, ("{g} don't deserve to live.", "No {g} will ever be as good as us.", "{g} are not real humans.")),
    "slur": (1, ("You are just a {s}.", "What a filthy {s} he is.", "Get lost, you {s}.", "These {s}s ruin it all.")),
    "insult": (
        1,
        (
            "You are such an idiot.",
            "Shut your mouth, you worthless pig.",
            "He is a pathetic moron and everybody knows it.",
            "What a bunch of brainless clowns.",
            "Your mother is ugly and so are you.",
            "Go and die, loser.",
        ),
    ),
    "neutral mention": (0, ("We spoke with {g} about the new school.", "There are {g} in every city.", "A film about {g} won the prize.")),
    "praise": (0, ("{g} are wonderful neighbours.", "I admire {g} for what they have done.", "It is great to work with {g}.")),
    "negation": (
        0,
        (
            "I don't despise {g}.",
            "{g} are not disgusting.",
            "Not a single person may injure {g}.",
            "It isn't as if {g} only lied.",
        ),
    ),
    "counter speech, quoted": (
        0,
        (
            'Graffiti like "{g} are vermin" gets painted over.',
            'Things like "shoot all {g}" have no place in this forum.',
            'With "I despise {g}" he lost the election, and rightly.',
        ),
    ),
    "counter speech, referring": (
        0,
        (
            "It hurts to hear that {g} don't deserve to live.",
            "I won't accept it when you find {g} disgusting.",
            "Contempt for {g} harms all of us.",
        ),
    ),
    "reclaimed": (
        0,
        (
            "As a {s} myself I feel fine.",
            "Us two {s}s have been married for years.",
            "Your favourite {s}, says the shirt that I made.",
        ),
    ),
    "mentioned slur": (
        0,
        (
            "Editors cut the word {s} from the second edition.",
            "At school he heard {s} every day, and went home alone.",
            "A study of how {s} spread from one country to the next.",
        ),
    ),
    "harmless object": (
        0,
        (
            "I can't stand Mondays.",
            "I really despise cold coffee.",
            "This soup is disgusting.",
            "Kill the process, then wait.",
            "I was an idiot to leave my umbrella at home.",
            "My phone will die in an hour.",
            "The pig and the ass live on our farm.",
        ),
    ),
}
#: The functionalities that a word list judges wrongly.
HARD = ("negation", "counter speech, quoted", "counter speech, referring", "reclaimed", "mentioned slur")


def slurs(data: Path) -> list[str]:
    """Returns severe one-word slurs against people: the canonical forms of surge_profanity."""
    with open(data / "toxicity/surge_profanity/profanity_en.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = ("racial / ethnic slurs", "sexual orientation / gender")
    found = {row["canonical_form_1"] for row in rows if row["category_1"] in kinds and row["severity_description"] == "Severe"}
    return sorted(word for word in found if word.isascii() and word.isalpha() and not word.endswith("s"))[::4]


def cases(words: list[str]) -> list[Case]:
    """Returns all cases: every template with every group or slur that fits it."""
    found = []
    for functionality, (toxic, templates) in TEMPLATES.items():
        for template in templates:
            for word in GROUPS if "{g}" in template else words if "{s}" in template else ("",):
                text = template.format(g=word, s=word)
                found.append(Case(functionality, text[0].upper() + text[1:], toxic))
    return found
