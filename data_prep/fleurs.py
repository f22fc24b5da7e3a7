"""FLEURS: the same 2,000 sentences of FLoRes read aloud in 102 languages; speech translation for testing.

    records("fleurs/data/fr_fr", "fr")                            # transcribed speech
    records("fleurs/data", "fr", target="en")                     # with the same sentence in English, text and speech
    records("hub", "fr", splits=["test"])                         # streamed from the Hub

    data/fr_fr/train.tsv                id  file_name  raw_transcription  transcription  chars  num_samples  gender
    data/fr_fr/audio/train.tar.gz       train/10004088536354799741.wav

The tables have no header. A sentence is read by one to three people; with `target`, each recording of the source goes
with one of the target, in turn. Paper: arXiv 2205.12446.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.archives import AudioStash, FileTree, stash_audio, with_audio
from data_prep.choices import chosen_language, chosen_splits, record_split
from data_prep.dataset import PARQUET_EXPORT, hub_records, hub_source
from data_prep.tsv import tsv_rows
from speechllm.data.cards import CorpusCard, Figure
from speechllm.data.records import Record, Translation
from speechllm.errors import DataError

CONFIGS = (
    "af_za", "am_et", "ar_eg", "as_in", "ast_es", "az_az", "be_by", "bg_bg", "bn_in", "bs_ba", "ca_es", "ceb_ph",
    "ckb_iq", "cmn_hans_cn", "cs_cz", "cy_gb", "da_dk", "de_de", "el_gr", "en_us", "es_419", "et_ee", "fa_ir", "ff_sn",
    "fi_fi", "fil_ph", "fr_fr", "ga_ie", "gl_es", "gu_in", "ha_ng", "he_il", "hi_in", "hr_hr", "hu_hu", "hy_am",
    "id_id", "ig_ng", "is_is", "it_it", "ja_jp", "jv_id", "ka_ge", "kam_ke", "kea_cv", "kk_kz", "km_kh", "kn_in",
    "ko_kr", "ky_kg", "lb_lu", "lg_ug", "ln_cd", "lo_la", "lt_lt", "luo_ke", "lv_lv", "mi_nz", "mk_mk", "ml_in",
    "mn_mn", "mr_in", "ms_my", "mt_mt", "my_mm", "nb_no", "ne_np", "nl_nl", "nso_za", "ny_mw", "oc_fr", "om_et",
    "or_in", "pa_in", "pl_pl", "ps_af", "pt_br", "ro_ro", "ru_ru", "sd_in", "sk_sk", "sl_si", "sn_zw", "so_so",
    "sr_rs", "sv_se", "sw_ke", "ta_in", "te_in", "tg_tj", "th_th", "tr_tr", "uk_ua", "umb_ao", "ur_pk", "uz_uz",
    "vi_vn", "wo_sn", "xh_za", "yo_ng", "yue_hant_hk", "zu_za",
)  # fmt: skip
"How the corpus writes its languages: folders, and configurations on the Hub."
_ISO = {"cmn": "zh", "fil": "tl", "nb": "no"}
"Codes of ours where the corpus has a narrower one."
BY_CODE = {_ISO.get(name.split("_")[0], name.split("_")[0]): name for name in CONFIGS}
"Its folder by our code."
SPLITS = ("train", "dev", "test")
COLUMNS = ("id", "file_name", "raw_transcription", "transcription", "characters", "num_samples", "gender")
TEXTS = ("raw_transcription", "transcription")
HUB = "google/fleurs"


def records(
    source: str | Path,
    language: str,
    target: str | None = None,
    splits: Sequence[str] | None = None,
    text: str = "raw_transcription",
) -> Iterator[Record]:
    """Yield recordings, with `target` those whose sentence was also read in that language.

    Args:
        source: folder with the languages or with one, or "hub".
        language: ISO code, English name, or a folder's name such as "es_419".
        target: the same, of the parallel side.
        splits: of train, dev, test; all if None.
        text: which column is the transcript; `transcription` is in lower case without punctuation.

    Raises:
        DataError: a table is missing or broken, the Hub is asked for two languages, or an archive is cut short.
        TaskError: a language is unknown.
    """
    code = _code(language)
    chosen = chosen_splits(splits, SPLITS, "FLEURS")
    if text not in TEXTS:
        raise DataError(f"text is {text!r}, expected one of {', '.join(TEXTS)}")
    if hub := hub_source(source, HUB, PARQUET_EXPORT):
        if target is not None:
            raise DataError("FLEURS from the Hub has one language at a time; download both folders for target=")
        names = {"validation" if name == "dev" else name: record_split(name) for name in chosen}
        yield from hub_records(hub, BY_CODE[code], names, {"text": text, "id": "path"}, code)
        return
    tree = _tree(Path(source), code)
    for split in chosen:
        ours = _readings(tree, split, text)
        if target is None:
            for reading, audio in with_audio(tree, ("*.wav",), ours, _key):
                yield Record(f"{code}-{split}-{reading.name}", record_split(split), code, reading.text, audio)
        else:
            yield from _pairs(tree, ours, code, _Parallel(Path(source), _code(target), split, text))


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="fleurs",
        title="FLEURS",
        summary="Sentences of FLoRes-101 read aloud in 102 languages, parallel in all of them by sentence id.",
        homepage="https://huggingface.co/datasets/google/fleurs",
        licence="CC-BY-4.0",
        languages=tuple(sorted(BY_CODE)),
        tasks=("ASR", "AST", "S2ST", "TTS", "MT"),
        figures=(Figure("about 12 hours of speech a language", "arXiv:2205.12446, abstract"),),
        papers=("arXiv:2205.12446",),
        layout="`data/X/{train,dev,test}.tsv` and `data/X/audio/{train,dev,test}.tar.gz`, as on the Hub",
        hub=HUB,
        example="source=fleurs/data language=fr target=en",
        problems=(
            "The two sides of a pair are different people, and have no speaker ids, only a gender",
            "Often used as a zero-shot test: keep it out of training if you mean to report that",
            "From the Hub it is read from the parquet export, a language at a time, without pairs; for pairs get the "
            "files: `hf download google/fleurs --repo-type dataset --include 'data/fr_fr/*' 'data/en_us/*'`",
            "With `target`, the other language's audio is copied to the temporary folder while it runs",
        ),
    )


@dataclass(frozen=True)
class _Reading:
    """A row of a table."""

    sentence: str
    "Id that is the same in all languages."
    name: str
    text: str


@dataclass(frozen=True)
class _Parallel:
    """What to read on the other side."""

    source: Path
    code: str
    split: str
    text: str


def _pairs(tree: FileTree, ours: dict[str, _Reading], code: str, other: _Parallel) -> Iterator[Record]:
    there = _tree(other.source, other.code)
    theirs: dict[str, list[tuple[str, _Reading]]] = {}
    for key, reading in _readings(there, other.split, other.text).items():
        theirs.setdefault(reading.sentence, []).append((key, reading))
    # Before any audio is read, so that who goes with whom does not depend on the order of files.
    partners: dict[str, tuple[str, _Reading]] = {}
    turns: dict[str, int] = {}
    for key, reading in ours.items():
        if choices := theirs.get(reading.sentence):
            turn = turns[reading.sentence] = turns.get(reading.sentence, -1) + 1
            partners[key] = choices[turn % len(choices)]
    wanted = {key: (ours[key], *partner) for key, partner in partners.items()}
    with stash_audio(there, ("*.wav",), {key for key, _ in partners.values()}, _key) as speech:
        for (reading, key, partner), audio in with_audio(tree, ("*.wav",), wanted, _key):
            id = f"{code}-{other.code}-{other.split}-{reading.name}"
            translation = _translation(other.code, partner, speech, key)
            yield Record(id, record_split(other.split), code, reading.text, audio, translation=translation)


def _translation(code: str, reading: _Reading, speech: AudioStash, key: str) -> Translation:
    return Translation(code, reading.text, speech[key])


def _readings(tree: FileTree, split: str, text: str) -> dict[str, _Reading]:
    found = tree.texts(f"{split}.tsv")
    if len(found) != 1:
        raise DataError(f"{tree.root} must have one {split}.tsv, it has {len(found)}; give the folder of the languages")
    rows = tsv_rows(found[0].lines(), found[0].name, COLUMNS[:4], names=COLUMNS)
    readings = (_Reading(row["id"], PurePosixPath(row["file_name"]).stem, row[text].strip()) for row in rows)
    return {f"{split}/{reading.name}.wav": reading for reading in readings}


def _key(name: str) -> str:
    """Return split and file: audio/train.tar.gz/train/1.wav -> train/1.wav."""
    return "/".join(PurePosixPath(name).parts[-2:])


def _tree(source: Path, code: str) -> FileTree:
    """Return the folder of a language: one below `source`, at any depth of "data", or `source` itself."""
    name = BY_CODE[code]
    for place in (source / name, source / "data" / name):
        if place.is_dir():
            return FileTree.at(place)
    if source.name == name:
        return FileTree.at(source)
    raise DataError(f"{source} has no folder {name}, which FLEURS has for {code!r}")


def _code(language: str) -> str:
    first = language.lower().split("_")[0]
    if language.lower() in CONFIGS:
        return _ISO.get(first, first)
    return chosen_language(language, BY_CODE, "FLEURS")
