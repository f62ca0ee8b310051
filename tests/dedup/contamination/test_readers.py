"""What is looked for of each published format."""

import json
from pathlib import Path
from typing import Any

import pytest

from corpusmill.dedup.contamination.config import ContaminationConfig, FieldsConfig
from corpusmill.dedup.contamination.files import set_files
from corpusmill.dedup.contamination.readers import FORMATS, reader
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.formats.evaluation_sets import read_set

CHOICES = {"text": ["red", "blue"], "label": ["A", "B"]}
ROWS: list[tuple[str, dict[str, Any], list[tuple[str, str]]]] = [
    ("GSM8K", {"question": "q", "answer": "a #### 1"}, [("question", "q"), ("answer", "a #### 1")]),
    ("LAMBADA", {"text": "t"}, [("text", "t")]),
    (
        "HumanEval",
        {"task_id": "HumanEval/0", "prompt": "p", "entry_point": "e", "canonical_solution": "s", "test": "t"},
        [("prompt", "p"), ("canonical_solution", "s"), ("test", "t")],
    ),
    (
        "MBPP",
        {"task_id": 1, "text": "t", "code": "c", "test_list": ["assert a", "assert b"], "test_setup_code": "", "challenge_test_list": []},
        [("text", "t"), ("code", "c"), ("test_list", "assert a\nassert b")],
    ),
    ("BLiMP", {"sentence_good": "g", "sentence_bad": "b", "field": "syntax", "UID": "u"}, [("sentence_good", "g"), ("sentence_bad", "b")]),
    (
        "HellaSwag",
        {"ind": 1, "ctx_a": "c", "ctx_b": "", "ctx": "c", "endings": ["x", "y"], "label": "1"},
        [("ctx", "c"), ("ctx, endings", "c\ny")],
    ),
    ("HellaSwag", {"ctx": "c", "endings": ["x", "y"], "label": ""}, [("ctx", "c"), ("ctx, endings", "c\nx\ny")]),
    ("PIQA", {"goal": "g", "sol1": "1", "sol2": "2", "label": 0}, [("goal, sol1", "g\n1"), ("goal, sol2", "g\n2")]),
    (
        "WinoGrande",
        {"sentence": "The _ fell.", "option1": "cup", "option2": "pen", "answer": "1"},
        [("sentence, option1", "The cup fell."), ("sentence, option2", "The pen fell.")],
    ),
    ("MATH", {"problem": "p", "level": "Level 1", "type": "Algebra", "solution": "s"}, [("problem", "p"), ("solution", "s")]),
    (
        "MMLU",
        {"question": "q", "subject": "law", "choices": ["x", "y"], "answer": 1},
        [("question", "q"), ("question, choices", "q\nx\ny")],
    ),
    (
        "ARC, CommonsenseQA",
        {"id": "1", "question": "q", "choices": CHOICES, "answerKey": "A"},
        [("question", "q"), ("question, choices.text", "q\nred\nblue")],
    ),
    (
        "ARC, AI2's files",
        {
            "id": "1",
            "question": {"stem": "q", "choices": [{"text": "red", "label": "A"}, {"text": "blue", "label": "B"}]},
            "answerKey": "A",
        },
        [("question.stem", "q"), ("question.stem, question.choices.text", "q\nred\nblue")],
    ),
    (
        "OpenBookQA",
        {"id": "1", "question_stem": "q", "choices": CHOICES, "answerKey": "A"},
        [("question_stem", "q"), ("question_stem, choices.text", "q\nred\nblue")],
    ),
    (
        "TruthfulQA, multiple choice",
        {"question": "q", "mc1_targets": {"choices": ["x", "y"], "labels": [1, 0]}, "mc2_targets": {"choices": ["z"], "labels": [1]}},
        [("question", "q"), ("question, mc1_targets.choices", "q\nx\ny")],
    ),
    (
        "TruthfulQA, generation",
        {"type": "t", "question": "q", "best_answer": "b", "correct_answers": ["b"], "incorrect_answers": []},
        [("question", "q"), ("question, best_answer", "q\nb")],
    ),
    (
        "SQuAD",
        {"id": "1", "title": "t", "context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [0]}},
        [("question", "q")],
    ),
    ("BoolQ, DROP", {"question": "q", "answer": True, "passage": "p"}, [("question", "q")]),
    (
        "COPA",
        {"premise": "p", "choice1": "1", "choice2": "2", "question": "cause"},
        [("premise, choice1", "p\n1"), ("premise, choice2", "p\n2")],
    ),
    (
        "MMLU-Pro",
        {"question_id": 1, "question": "q", "options": ["x"], "answer": "A", "answer_index": 0},
        [("question", "q"), ("question, options", "q\nx")],
    ),
]


@pytest.mark.parametrize(("name", "row", "texts"), ROWS)
def test_formats_are_told_by_their_keys(name: str, row: dict[str, Any], texts: list[tuple[str, str]]) -> None:
    assert next(known.name for known in FORMATS if known.fits(row)) == name
    assert reader("set.jsonl", [row], None)(row) == texts


def test_fields_that_a_recipe_names() -> None:
    row = {"q": "question", "doc": {"body": "context"}, "options": [{"t": "x"}, {"t": "y"}], "gold": 3}
    names = FieldsConfig(question="q", context="doc.body", choices="options.t", answer="gold")
    assert reader("set.jsonl", [row], names)(row) == [
        ("q", "question"), ("doc.body", "context"), ("gold", "3"), ("q, options.t", "question\nx\ny"),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"^set.jsonl: no item has a field 'body' .* they have doc, gold, options, q\.$"):
        reader("set.jsonl", [row], FieldsConfig(question="body"))
    with pytest.raises(ValueError, match="at least one of question, context, choices and answer"):
        FieldsConfig()


def test_a_format_that_nobody_knows() -> None:
    with pytest.raises(InputError, match=r"^set.jsonl: no known format .*\(its items have premise, verdict\); name the fields"):
        reader("set.jsonl", [{"premise": "p", "verdict": 1}], None)
    with pytest.raises(InputError, match="its items have answer, question, verdict"):  # all items must fit
        reader("set.jsonl", [{"question": "q", "answer": "a"}, {"question": "q", "verdict": 1}], None)


def test_the_real_sets(shared_data: Path) -> None:
    files = set_files(ContaminationConfig(sets=[str(shared_data / "eval")]).set_configs())
    found = {file.name: [(place, rows) for place, rows in read_set(file.ref.path)] for file in files}
    assert {name: sum(len(rows) for _, rows in tables) for name, tables in found.items()} == {
        "HumanEval": 164, "blimp": 67_000, "gsm8k_test": 1319, "lambada_test": 5153,
    }  # fmt: skip
    readers = {name: [(reader(place, rows, None), rows) for place, rows in tables] for name, tables in found.items()}
    fields = {name: {field for read, rows in tables for row in rows for field, _ in read(row)} for name, tables in readers.items()}
    assert fields == {
        "HumanEval": {"prompt", "canonical_solution", "test"}, "blimp": {"sentence_good", "sentence_bad"},
        "gsm8k_test": {"question", "answer"}, "lambada_test": {"text"},
    }  # fmt: skip
    first = json.loads((shared_data / "eval" / "gsm8k_test.jsonl").read_text().splitlines()[0])
    assert found["gsm8k_test"][0][1][0] == first
