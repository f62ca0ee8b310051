"""Sentences that share their words and differ in what is meant: hostile ones, and such as deny, reject, quote, reclaim or mention them.

Text that people have judged holds few of these, so a classifier learns the words alone. Templates of this project's own are filled from
small lists, and listed words stand for slurs; `benchmarks/functional_toxicity.py` measures with other templates, words and groups.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import xxhash

from corpusmill.filters.classifier.defaults.store import Corpus, Row
from corpusmill.filters.classifier.defaults.weak_labels import SWEAR_WORDS, sure_and_unsure

# fmt: off
SLOTS: dict[str, tuple[str, ...]] = {
    "group": (
        "women", "men", "gay people", "lesbians", "Muslims", "Christians", "Jews", "black people", "Asians", "Mexicans", "Arabs",
        "immigrants", "refugees", "foreigners", "disabled people", "fat people", "poor people", "blind people", "bisexuals", "Indians",
        "Poles", "feminists", "atheists", "white people",
    ),
    "bad": (
        "stupid", "dirty", "evil", "lazy", "trash", "scum", "criminals", "parasites", "inferior", "filthy", "gross", "rats", "a disease",
        "monsters", "garbage", "subhuman", "ugly", "savages", "thieves", "freaks",
    ),
    "harm": (
        "kill", "hurt", "beat", "hang", "ban", "deport", "burn", "punch", "kick out", "get rid of", "lock up", "hate", "spit on",
        "laugh at",
    ),
    "hostile": (
        "{group} are {bad}", "all {group} are {bad}", "I hate {group}", "{group} make me sick", "{harm} {group}",
        "let us {harm} all {group}", "{group} must go", "{group} deserve to suffer", "I want to {harm} {group}",
        "{group} ruin everything", "{group} belong in the gutter", "{group} have no rights", "{group} will never be normal",
        "we do not need {group}", "nobody likes {group}", "you are {bad}", "you are nothing but {bad}",
    ),
    "who": (
        "people", "anyone", "whoever", "those", "a man", "my neighbour", "the troll", "politicians", "somebody", "they", "he", "she",
        "the author", "my boss",
    ),
    "says": (
        "say", "says", "said", "write", "writes", "wrote", "claim", "claims", "claimed", "shout", "shouted", "post", "posted", "think",
        "thinks", "believe", "tweeted", "told me",
    ),
    "uttering": (
        "saying", "writing", "claiming", "shouting", "posting", "thinking", "repeating", "tweeting", "spreading",
    ),
    "false": (
        "wrong", "false", "unfair", "cruel", "a lie", "racist", "hurtful", "shameful", "nonsense", "hateful", "not true", "unacceptable",
        "bigoted", "sad", "not okay",
    ),
    "verdict": (
        "should be ashamed", "is a bigot", "was banned", "must apologise", "are mistaken", "got fired", "has no friends", "need to learn",
        "made us sad", "will be reported", "was not welcome here", "is lying", "deserves no applause",
    ),
    "stop": (
        "stop", "please stop", "never try", "no more", "quit", "enough of", "I am tired of people", "we do not allow", "I report anyone",
    ),
    "good": (
        "kind", "clever", "strong", "welcome", "beautiful", "friendly", "brave", "honest", "our friends", "equal", "good people",
    ),
    "not": (
        "not", "never", "hardly", "anything but", "by no means", "certainly not", "no longer called",
    ),
    "nobody": (
        "nobody", "no one", "not one of us", "none of my friends", "no decent person",
    ),
    "like": (
        "love", "like", "respect", "support", "welcome", "trust", "stand with", "am proud of", "care for", "learn from",
    ),
    "term": (
        "word", "slur", "term", "insult", "name", "label", "expression",
    ),
    "of_the_term": (
        "hurts", "is offensive", "was painted on the door", "comes from an old book", "is banned here", "is explained in the dictionary",
        "was removed from the text", "made her cry", "is a slur", "has a long history", "appears in the file",
    ),
    "self": (
        "am proud", "love my life", "am happy", "am strong", "like myself", "will not hide", "am who I am", "found my people",
        "know my worth",
    ),
    "together": (
        "stand together", "support each other", "celebrate", "love one another", "are a family", "march with pride", "help our own",
        "laugh together",
    ),
    "thing": (
        "rain", "traffic", "this old car", "the printer", "my alarm clock", "broccoli", "the cold", "homework", "this bug", "slow wifi",
        "spam", "winter", "the exam", "taxes", "this game",
    ),
    "grumble": (
        "I hate {thing}", "{thing} makes me sick", "{thing} is {bad}", "get rid of {thing}", "I want to kick {thing}", "{thing} must go",
        "{thing} ruins everything", "{thing} is killing me", "damn, {thing} again",
    ),
    "fact": (
        "came to the meeting", "live in the next street", "opened a shop", "were asked about their work", "won the match",
        "wrote a letter", "can apply until Friday", "sang in the choir", "are part of the study", "vote in May",
    ),
    "utter": (
        "say", "write", "claim", "shout", "post", "think", "repeat", "call it out",
    ),
}
#: `(toxic, sentences, templates)`; `word` is a listed word.
TEMPLATES: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (1, 3000, (
        "{hostile}", "{hostile}", "{hostile}", "everybody knows {hostile}", "I {utter} it again: {hostile}", "it is true that {hostile}",
        "sorry, but {hostile}", "{hostile}, and you know it", "honestly {hostile}", "I do not care, {hostile}",
        "never mind them, {hostile}", "nobody can tell me otherwise, {hostile}", "I am not a racist but {hostile}",
        '"{hostile}" is exactly right', "whoever says {group} are {good} is lying", "stop saying {group} are {good}, {hostile}",
        "do not tell me {group} are {good}, {hostile}", "no, {group} are not {good}", "{group} do not deserve any help",
        "{group} are not welcome here", "{group} can not be trusted", "I would never hire {group}", "{group} are {not} {good}",
        "I do not {like} {group}", "{nobody} should {like} {group}",
    )),  # hostile, also by negation and round counter speech
    (1, 1600, (
        "shut up you {word}", "stupid {word}", "all {word}s must go", "look at that {word}", "she is a {word}", "you {word}",
        "only a {word} would do that", "dumb {word}s everywhere", "I hate {word}s", "he acts like a {word}", "typical {word}",
        "you are {bad}, {word}", "the {term} for you is {word}", "call him a {word}, he is one", "never trust a {word}",
        "no {word} is welcome here", "{harm} every {word}", "I am no {word} like you",
    )),  # a listed word against somebody
    (0, 3000, (
        '"{hostile}" is {false}', '{who} who {says} "{hostile}" {verdict}', "{who} {says} that {hostile}, which is {false}",
        "it is {false} to {utter} that {hostile}", '{uttering} "{hostile}" is {false}', '{stop} {uttering} "{hostile}"',
        "do not {utter} that {hostile}", 'I was shocked when {who} {says} "{hostile}"', "how can {who} {says} that {hostile}?",
        '{who} {says} "{hostile}" and {verdict}', "the idea that {hostile} is {false}", "I disagree when {who} {says} {hostile}",
        "it is {false} that {hostile}", "calling {group} {bad} is {false}", "{uttering} that {hostile} {verdict}",
        "hate against {group} is {false}", "the hatred that {group} suffer is {false}", "who calls {group} {bad} {verdict}",
        "I will not let {who} call {group} {bad}", "we asked {who} to leave after {uttering} {hostile}",
    )),  # counter speech
    (0, 1600, (
        "I do not {harm} {group}", "{group} are {not} {bad}", "{group} are not {bad}", "{group} aren't {bad}",
        "{nobody} should {harm} {group}", "{nobody} has the right to {harm} {group}", "I would never {harm} {group}",
        "I have never said that {group} are {bad}", "you can't call {group} {bad}", "do not {harm} {group}", "{group} were never {bad}",
        "nothing about {group} is {bad}", "it isn't right to {harm} {group}", "{group} are neither {bad} nor {bad}",
        "I don't hate {group}", "we won't {harm} {group}", "they did not {harm} {group}",
    )),  # negation
    (0, 1400, (
        "{group} {fact}", "many {group} {fact}", "the rights of {group}", "my friends are {group}", "a book by {group}",
        "I {like} {group}", "we {like} {group}", "{group} are {good}", "thank you to all {group} who {fact}", "{group} deserve respect",
        "{grumble}", "{grumble}", "{grumble}",
    )),  # ordinary and kind, and hostile to things alone
    (0, 1800, (
        "I am a {word} and I {self}", "being a {word} I {self}", "we {word}s {together}", "us {word}s {together}",
        "my fellow {word}s {together}", "proud {word}", "I call myself a {word} and {self}", "from one {word} to another, we {together}",
        "as {word}s we {together}", 'the {term} "{word}" {of_the_term}', "the {term} {word} {of_the_term}", '"{word}" {of_the_term}',
        "{who} called me a {word} and it hurt", "my son was called {word} at work", "they shouted {word} at her",
        "please never call anyone a {word}", "a teacher {verdict} for {uttering} {word}", 'do not {utter} "{word}" here',
        "kids who are called {word} suffer", "a paper on the {term} {word}", "where does the {term} {word} come from",
        "{false} to call her a {word}",
    )),  # a listed word reclaimed or spoken of
)
# fmt: on
_SLOT = re.compile(r"\{(\w+)\}")


def _contrasts() -> Iterator[Row]:
    words = [word for word in sorted(sure_and_unsure()[0]) if word.isascii() and word.isalpha() and len(word) > 3]
    slots = {**SLOTS, "word": words}
    for toxic, sentences, templates in TEMPLATES:
        for number in range(sentences):
            yield {"text": _filled(templates[number % len(templates)], f"{templates[0]} {number}", slots), "toxic": toxic}


def _filled(template: str, key: str, slots: Mapping[str, Sequence[str]]) -> str:
    """A template with a choice for each slot, and for the slots of these, by a hash of the key."""
    place = 0
    while found := _SLOT.search(template):
        choices = slots[found[1]]
        chosen = choices[xxhash.xxh3_64_intdigest(f"{key} {place}") % len(choices)]
        template, place = template[: found.start()] + chosen + template[found.end() :], place + 1
    return template


#: `{text, toxic}`.
CONTRASTS = Corpus("contrasts.jsonl", _contrasts, SWEAR_WORDS.packages, (*SWEAR_WORDS.code, "contrasts.py"))
