import pytest

from corpusmill.filters.language_codes import ISO_639_3, LID_176, canonical, labels_for, split_script


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
    labels = frozenset({"zho_Hans", "zho_Hant", "eng_Latn"})
    assert labels_for(["zh"], labels) == ("zho_Hans", "zho_Hant")
    assert labels_for(["zh_Hans"], labels) == labels_for(["zho_hans"], labels) == ("zho_Hans",)
    assert labels_for(["en", "zho_Hant"], labels) == ("eng_Latn", "zho_Hant")
    with pytest.raises(ValueError, match="'zh_Latn' is no language that the model knows"):
        labels_for(["zh_Latn"], labels)
    with pytest.raises(ValueError, match="'eng_Latn' names a script, which the model does not tell"):
        labels_for(["eng_Latn"], LID_176)


def test_scripts() -> None:
    assert split_script("eng_Latn") == ("eng", "Latn") and split_script("en") == ("en", None)
    assert split_script("zh_yue") == ("zh_yue", None)


@pytest.mark.parametrize("code", ["english", "xx", "", "ger"])
def test_unknown_codes_are_refused(code: str) -> None:
    with pytest.raises(ValueError, match="no language that the model knows"):
        labels_for([code], LID_176)
