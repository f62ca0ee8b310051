"""Libraries that only some work needs: the extra of this package that installs each, and the sentence where one is missing."""

from importlib.util import find_spec

from corpusmill.pipeline.errors import InputError

#: The extra that installs a library, by the name under which Python imports the library.
EXTRAS = {
    "torch": "train",
    "safetensors": "train",
    "tensorboard": "train",
    "wandb": "wandb",
    "sklearn": "classifiers",
    "scipy": "train",
    "mwparserfromhell": "classifiers",
    "transformers": "transformers",
    "openai": "llm",
    "trafilatura": "trafilatura",
    "obstore": "stores",
    "boto3": "stores",
    "jieba": "zh",
    "pythainlp": "th",
    "grpc": "cluster",  # this and the next come with ray[default]
    "prometheus_client": "cluster",
}
#: What every training needs.
TRAINING = ("torch", "safetensors")
#: What the training of the built-in classifier needs.
CLASSIFIERS = ("sklearn", "mwparserfromhell")


def sentence(library: str) -> str:
    """Returns the message for a library of `EXTRAS` that is missing."""
    return f"{library} is not installed here; pip install 'corpusmill[{EXTRAS[library]}]'."


def require(user: str, *libraries: str) -> None:
    """Raises InputError in one sentence if one of the libraries (of `EXTRAS`) is missing. `user`: what needs them."""
    for library in libraries:
        if find_spec(library) is None:
            raise InputError(f"{user}: {sentence(library)}")
