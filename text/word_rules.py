"""The names of word rules in recipes, and the modules that find the words of those that need a library. Loads no kernels.

* `words`, `whitespace`, `characters`: tables of characters (`text.words`);
* `spacy`: the words of datatrove for English, by kernels; `jieba` and `newmm`: those for Chinese and Thai;
* `datatrove:LANGUAGE`: those for any of its languages, by its own tokenizers.
"""

from typing import Annotated, Any

from pydantic import AfterValidator

from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.stage import load_object

#: The rules that a table of characters defines.
WORD_RULES = ("words", "whitespace", "characters")
#: The modules that find the words of other rules. A rule that ends in a colon has a language after it. By this table, a module counts for
#: the code of the tasks that have its rule (`pipeline/code.py`).
FINDERS = {
    "spacy": "corpusmill.text.spacy_tokens",
    "jieba": "corpusmill.text.jieba_words",
    "newmm": "corpusmill.text.newmm_words",
    "datatrove:": "corpusmill.text.datatrove_words",
}
#: Those of them that give the words without the text between them.
WITHOUT_TEXT = ("newmm", "datatrove:")


def rule_libraries(rule: str) -> tuple[str, ...]:
    """Returns the libraries (`pipeline.extras`) that a rule needs. Raises InputError for a language of which datatrove has no words."""
    return () if rule in WORD_RULES else tuple(of_finder(rule, "libraries")(rule.partition(":")[2]))


def of_finder(rule: str, function: str) -> Any:
    """Returns a function of the module that finds the words of a rule. Raises KeyError for an unknown rule."""
    name, colon, _ = rule.partition(":")
    return load_object(f"{FINDERS[name + colon]}:{function}")


def check_word_rule(rule: str) -> str:
    """Returns the rule. Raises ValueError if there is none of this name."""
    name, colon, _ = rule.partition(":")
    if rule not in WORD_RULES and name + colon not in FINDERS:
        known = [*WORD_RULES, *(f"{name}LANGUAGE" if name.endswith(":") else name for name in FINDERS)]
        raise ValueError(f"{rule!r} is no word rule{instead_of(rule, known)}")
    return rule


#: A word rule in a recipe.
WordRule = Annotated[str, AfterValidator(check_word_rule)]


def sends_requests(rule: str) -> bool:
    """Whether the tokenizer of a rule fetches its model at its first use."""
    return rule.startswith("datatrove:") and bool(of_finder(rule, "fetches")(rule.partition(":")[2]))
