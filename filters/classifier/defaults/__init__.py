"""The classifier that is there without a model given, and the texts in packages that such can be trained on."""

BUILTIN = ("quality",)
#: Steps without a built-in model: what their recipe lacks, and how to make it.
NO_MODEL = {
    "toxicity": "none is built in, since no package ships text that people have judged; train one on labelled texts "
    "(`corpusmill classifier train --data posts.jsonl --label-column toxic --output models/toxicity`, 1 for toxic and 0 for not) and name "
    "it: `- toxicity: models/toxicity` (docs/classifiers.md)",
    "spam": "none is built in, since no package ships judged spam of the web; train one on your own examples (`corpusmill classifier train "
    "--positive spam/ --negative good/ --output models/spam`) and name it: `- spam: models/spam` (docs/classifiers.md)",
}
