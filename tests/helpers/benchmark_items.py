"""A handful of items of each benchmark, in the form of the published sets."""

from typing import Any

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
