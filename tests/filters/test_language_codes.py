import pytest

from corpusmill.filters.language_codes import ISO_639_3, LID_176, canonical, labels_for


def test_tables() -> None:
    assert len(ISO_639_3) == len(set(ISO_639_3.values())) == 184
    assert len(LID_176) == 176


@pytest.mark.parametrize(
    ("code", "label"),
    [("en", "en"), ("eng", "en"), ("fra", "fr"), ("ENG", "en"), ("nob", "no"), ("gsw", "als"), ("als", "als"), ("arz", "arz")],
)
def test_spellings(code: str, label: str) -> None:
    assert labels_for([code], LID_176) == (label,)


def test_every_label_names_itself_and_nothing_else() -> None:
    assert all(labels_for([label], LID_176) == (label,) for label in LID_176)


def test_codes_of_other_models() -> None:
    assert canonical("eng_Latn") == "eng"
    assert labels_for(["zh"], frozenset({"zho_Hans", "zho_Hant", "eng_Latn"})) == ("zho_Hans", "zho_Hant")


@pytest.mark.parametrize("code", ["english", "xx", "", "ger"])
def test_unknown_codes_are_refused(code: str) -> None:
    with pytest.raises(ValueError, match="no language that the model knows"):
        labels_for([code], LID_176)
