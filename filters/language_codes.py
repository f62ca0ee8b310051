"""Language codes: one name for each language, whether written as ISO 639-1 ("en"), as ISO 639-3 ("eng") or as a language model's label."""

import re

#: ISO 639-1 to ISO 639-3, all 184 of the standard (from Debian's iso-codes).
_PAIRS = """
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
ISO_639_3 = dict(pair.split(":") for pair in _PAIRS.split())

#: The 176 labels of lid.176, which are the codes of the Wikipedias it was trained on.
_LABELS = """
    af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de diq dsb dty
    dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka
    kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne
    new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te
    tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh
"""
LID_176 = frozenset(_LABELS.split())

#: Codes that differ between Wikipedia and the standard. Alemannic is `als` in Wikipedia, which is Tosk Albanian in ISO 639-3. The model has
#: one label `no` for Norwegian, most of which is Bokmål.
_WIKIPEDIA = {"gsw": "als", "nob": "no", "nb": "no"}


_SCRIPT = re.compile(r"[A-Z][a-z]{3}")


def split_script(label: str) -> tuple[str, str | None]:
    """Splits a code into `(language, script)`: "eng_Latn" gives ("eng", "Latn"), "en" gives ("en", None). Scripts are ISO 15924."""
    language, _, script = label.partition("_")
    return (language, script) if _SCRIPT.fullmatch(script) else (label, None)


def canonical(code: str) -> str:
    """Returns one name for all spellings of a language: "en", "eng" and "eng_Latn" give "eng". An unknown code is returned as it is."""
    code = code.strip().lower().partition("_")[0]
    code = _WIKIPEDIA.get(code, code)
    return ISO_639_3.get(code, code)


def labels_for(codes: list[str] | tuple[str, ...], labels: frozenset[str]) -> tuple[str, ...]:
    """Returns a model's labels that the codes name, sorted: "zh" names "zho_Hans" and "zho_Hant", "zh_Hans" names only the first.

    Raises ValueError for a code that names no label, or that has a script although the model's labels have none.
    """
    by_name: dict[str, list[str]] = {}
    for label in labels:
        by_name.setdefault(canonical(label), []).append(label)
    wanted: set[str] = set()
    for code in codes:
        found = [code] if code in labels else by_name.get(canonical(code), [])
        script = code.strip().partition("_")[2].title()
        if script and found and code not in labels:
            if all(split_script(label)[1] is None for label in found):
                raise ValueError(f"{code!r} names a script, but the model's labels have none (without it: {canonical(code)})")
            found = [label for label in found if split_script(label)[1] == script]
        if not found:
            raise ValueError(f"{code!r} is no language that the model knows (codes are ISO 639, such as en or eng)")
        wanted.update(found)
    return tuple(sorted(wanted))
