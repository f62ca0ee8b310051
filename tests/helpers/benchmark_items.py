"""A handful of items of each benchmark, in the form of the published sets."""

import json
from pathlib import Path
from typing import Any

import yaml

BLIMP = [
    {"sentence_good": f"The {a} that the {b} carries turns.", "sentence_bad": f"The {a} that the {b} carry turns.", "UID": uid}
    for uid, a, b in (
        ("agreement", "wheel", "river"), ("agreement", "grain", "old miller"), ("island", "flour", "farmer"), ("island", "cart", "Müller"),
    )
]  # fmt: skip
HELLASWAG = [
    {
        "activity_label": "Grinding  grain", "ctx_a": "The miller [step] opens the gate. [title] How to grind", "ctx_b": ctx_b,
        "ctx": "", "label": label,
        "endings": ["and the wheel  turns.", "he sells the [substeps] river.", "clear water, white flour.", "the winter wheat remembers…"],
    }
    for ctx_b, label in (("then he", "0"), ("", "2"), ("THE WATER", 3), ("a farmer ", "1"))
]  # fmt: skip
ARC = [
    {"question": question, "choices": {"text": texts, "label": labels}, "answerKey": key}
    for question, texts, labels, key in (
        ("What turns the wheel?", ["clear water", "stories", "a cart", "flour"], ["A", "B", "C", "D"], "A"),
        ("Which stone is heavy?", ["the old one", "none", "every stone"], ["1", "2", "3"], "3"),
        ("What does a farmer keep?", ["wheat", "grain", "rivers", "merchants", "villages"], ["A", "B", "C", "D", "E"], "D"),
    )
]
PIQA = [
    {
        "goal": "grind the grain",
        "sol1": "Turn the stones with clear water.",
        "sol2": "Turn water with clear stones and a cart.",
        "label": 0,
    },
    {"goal": "carry flour ", "sol1": "in a wooden cart", "sol2": "in a river", "label": 1},
]
WINOGRANDE = [
    {
        "sentence": "The miller sold flour to the farmer, as _ had much.",
        "option1": "the miller",
        "option2": "the farmer",
        "answer": "1",
    },
    {"sentence": "The cart broke under the stone, as _ was heavy.", "option1": "cart", "option2": "stone", "answer": "2"},
    {"sentence": "Wheat is not grain, said _.", "option1": "Our village", "option2": "A merchant", "answer": "2"},
]
LAMBADA = [
    {"text": "The miller opened the gate and the water began to turn the wheel"},
    {"text": "“Every farmer remembers,” he said. Our village keeps many stories.\n\nThe old miller sells white flour"},
    {"text": "wordless"},
]
SCIQ = [
    {"question": "What grinds the grain?", "distractor1": "water", "distractor2": "farmers", "distractor3": "wheat",
     "correct_answer": "stones", "support": support}
    for support in ("", " The mill grinds the grain between heavy stones.")
]  # fmt: skip

ITEMS: dict[str, list[dict[str, Any]]] = {
    "blimp": BLIMP, "hellaswag": HELLASWAG, "arc_easy": ARC, "arc_challenge": ARC, "piqa": PIQA, "winogrande": WINOGRANDE,
    "lambada": LAMBADA, "sciq": SCIQ,
}  # fmt: skip

# Tasks of CORE, in the form of DCLM's bundle.

CHOICES: list[dict[str, Any]] = [
    {"query": "Question: What turns the wheel?", "choices": ["the clear water", "the old miller", "many stories"], "gold": 0},
    {"query": "Question: Who sells flour?", "choices": ["the miller", "the merchant", "a river"], "gold": 1},
    {"query": "Question: What is heavy?", "choices": ["a stone", "a story", "the grain"], "gold": 0},
    {"query": "Question: What is white?", "choices": ["wheat", "the white flour", "the cart"], "gold": 1},
]
SCHEMA: list[dict[str, Any]] = [
    {"context_options": ["The cart broke under the stone, as the cart", "The cart broke under the stone, as the stone"],
     "continuation": "was heavy.", "gold": 1},
    {"context_options": ["A farmer paid the miller, as the farmer", "A farmer paid the miller, as the miller"],
     "continuation": "had ground his grain.", "gold": 1},
    {"context_options": ["Water turns wheels where water", "Water turns wheels where wheels"], "continuation": "is fast.", "gold": 0},
]  # fmt: skip
WORDS: list[dict[str, Any]] = [
    {"context": "A mill on this river grinds ", "continuation": "grain"},
    {"context": "  The miller keeps", "continuation": "many stories"},
    {"context": "Every farmer carries\n", "continuation": "wheat"},
]
#: label: kind, examples, delimiter (None: the default), per cent by guessing, items
CORE_SETS: dict[str, tuple[str, int, str | None, int, list[dict[str, Any]]]] = {
    "commonsense_qa": ("multiple_choice", 2, "\nAnswer: ", 40, CHOICES),
    "copa": ("multiple_choice", 0, None, 50, CHOICES),
    "winograd": ("schema", 1, None, 50, SCHEMA),
    "jeopardy": ("language_modeling", 1, "\nAnswer: ", 0, WORDS),
    "lambada_openai": ("language_modeling", 0, None, 0, WORDS),
}


def write_bundle(folder: Path, sets: dict[str, Any]) -> Path:
    """Writes a bundle of CORE with the tasks `sets`, as DCLM has it."""
    tasks = []
    (folder / "eval_data/some").mkdir(parents=True)
    for label, (kind, shots, delimiter, _, rows) in sets.items():
        (folder / f"eval_data/some/{label}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = {"label": label, "dataset_uri": f"some/{label}.jsonl", "num_fewshot": [shots], "icl_task_type": kind}
        tasks.append(task | ({} if delimiter is None else {"continuation_delimiter": delimiter}))
    (folder / "core.yaml").write_text(yaml.safe_dump({"icl_tasks": tasks}))
    table = "".join(f'{label},some,"one, two",{guess}\n' for label, (_, _, _, guess, _) in sets.items())
    (folder / "eval_meta_data.csv").write_text(f"Eval Task,Task Category,Description,Random baseline\n{table}")
    return folder
