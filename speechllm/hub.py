"""The checkpoint folder: everything that one system needs, complete or absent.

    save_checkpoint("out", model, processor, codec=codec, acoustic=soundstorm)
    checkpoint = load_checkpoint("out")                     # or "name/repository" on the Hub
    checkpoint.model, checkpoint.processor, checkpoint.codec, checkpoint.acoustic
    push_checkpoint("out", "name/repository")               # private, in one commit

    out/  config.json model.safetensors generation_config.json     the LM: AutoModelForCausalLM loads it as it is
          tokenizer.json tokenizer_config.json                      the text tokenizer
          speechllm.json                            vocabulary, fingerprints of the parts, what it was trained for
          semantic_tokenizer/  codec/  acoustic/                    one save_pretrained folder each
          training_config.yaml                                      how it was made, if that was given

Weights are safetensors and nothing here is ever unpickled. A folder is written beside its place and renamed into it.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from speechllm.config import save_config
from speechllm.errors import CheckpointError, NoCheckpointError, VocabularyError
from speechllm.processor import MANIFEST_FILE, SEMANTIC_FOLDER, UnifiedProcessor, read_manifest
from speechllm.repository import CARD_FILE, REPOSITORY, fetch_repository, list_repository, push_repository
from speechllm.tasks import TrainedFor
from speechllm.tokenizers.semantic import SemanticTokenizer

CODEC_FOLDER, ACOUSTIC_FOLDER = "codec", "acoustic"
TRAINED_KEY = "trained_for"
PART_FOLDERS = (SEMANTIC_FOLDER, CODEC_FOLDER, ACOUSTIC_FOLDER)
CODE_FOLDER = "speechllm_code"
"Where an exported checkpoint carries Python (`speechllm.remote_code`); never read by this package."
TRAINING_CONFIG_FILE = "training_config.yaml"
SAFE_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.yaml", "*.md"]
"What is fetched from the Hub, in any folder: weights only as safetensors, and no code."
CODE_FILES = f"{CODE_FOLDER}/*.py"
REPLACEABLE = {".json", ".safetensors", ".txt", ".model", ".jinja", ".yaml", ".md", ".html", ""}
PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib", ".h5", ".msgpack"}

Part: TypeAlias = Any
"A part with `save_pretrained(folder)` and, if it has one, a `fingerprint`."


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded checkpoint. `codec` and `acoustic` are None where the folder has none: no speech output then."""

    model: PreTrainedModel
    processor: UnifiedProcessor
    codec: Part | None = None
    acoustic: Part | None = None
    trained: TrainedFor | None = None
    "What the model was trained for; None: nobody wrote it down."
    folder: Path | None = None
    "Where it lies on this machine."
    manifest: Mapping[str, Any] | None = None
    "The content of speechllm.json."


def save_checkpoint(
    folder: str | Path,
    model: nn.Module,
    processor: UnifiedProcessor,
    *,
    codec: Part | None = None,
    acoustic: Part | None = None,
    trained: TrainedFor | None = None,
    config: Any = None,
) -> Path:
    """Write a whole checkpoint; what stood there before is replaced only once the new one is complete.

    Args:
        folder: absent, empty, or a checkpoint (which is replaced).
        model: a stock causal LM; merge adapters first.
        processor: its processor.
        codec: waveform codec, for speech output.
        acoustic: the model from semantic to acoustic codes, for speech output.
        trained: what the model was trained for; anything else is refused then, unless the user wants it anyway.
        config: a config dataclass to keep beside the weights.

    Raises:
        CheckpointError: the folder holds something else, or the disk refuses; what was there is untouched.
        VocabularyError: model and processor do not belong together.
    """
    folder = Path(folder).absolute()
    if not isinstance(model, PreTrainedModel) or getattr(model, "_hf_peft_config_loaded", False):
        raise CheckpointError(
            f"a {type(model).__name__} cannot be saved as a whole LM; merge its adapters first "
            "(speechllm.models.adapters.merge_adapters)"
        )
    check_same_size(model, processor, "the model", "the processor")
    _check_replaceable(folder)
    # The same name on every call: what a kill left behind goes with the next one.
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        _write(partial, model, processor, {CODEC_FOLDER: codec, ACOUSTIC_FOLDER: acoustic}, trained)
        if config is not None:
            save_config(config, partial / TRAINING_CONFIG_FILE)
        _put_in_place(partial, folder)
    except OSError as error:
        raise CheckpointError(f"cannot write checkpoint {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def load_checkpoint(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    model: PreTrainedModel | None = None,
) -> Checkpoint:
    """Load a checkpoint from a folder or a Hub repository, offline if it is there already.

    Args:
        source: a local folder, or "name/repository".
        device: where the model, the speech encoder and the acoustic parts go.
        dtype: of the LM's weights; None keeps what was saved.
        revision: branch, tag or commit on the Hub.
        token: of the Hub, for a private repository; None takes the one of `hf auth login` or HF_TOKEN.
        model: the LM, when it has been loaded from there already; then only the rest is.

    Raises:
        CheckpointError: nothing there, incomplete, weights that are not safetensors, or parts of different systems.
    """
    folder = checkpoint_folder(source, revision=revision, token=token)
    manifest = read_manifest(folder)
    processor = UnifiedProcessor.from_pretrained(folder)
    if processor.semantic_tokenizer is not None:
        processor.semantic_tokenizer.to(device)
    model = model if model is not None else _load_lm(folder, dtype)
    # Of an exported checkpoint: saved again without its code, the key would lead nowhere.
    vars(model.config).pop("custom_pipelines", None)
    check_same_size(model, processor, f"the LM in {folder}", f"its {MANIFEST_FILE}")
    codec, acoustic = _load_sound(folder, manifest, device)
    # One that `device_map` has laid over several devices stays where it is.
    if getattr(model, "hf_device_map", None) is None:
        nn.Module.to(model, device)
    return Checkpoint(model.eval(), processor, codec, acoustic, read_trained(manifest), folder, manifest)


def load_parts(
    folder: str | Path, *, tokenizer: SemanticTokenizer | None = None, device: str | torch.device = "cpu"
) -> tuple[SemanticTokenizer | None, Part | None, Part | None]:
    """Load semantic tokenizer, codec and acoustic model of a folder that may have no LM; what is missing is None.

    Args:
        folder: with semantic_tokenizer/, codec/, acoustic/, or some of them.
        tokenizer: in place of the folder's own, if that was loaded already.
        device: where they go.

    Raises:
        CheckpointError: it has none of them, their files are not safe, or they do not belong together.
    """
    folder = Path(folder)
    if not any((folder / part).is_dir() for part in PART_FOLDERS):
        raise CheckpointError(
            f"{folder} has none of {', '.join(f'{part}/' for part in PART_FOLDERS)}; give their folder"
        )
    for part in PART_FOLDERS:
        check_safe(folder / part)  # what else lies there is not read
    if tokenizer is None and (folder / SEMANTIC_FOLDER).is_dir():
        tokenizer = SemanticTokenizer.from_pretrained(folder / SEMANTIC_FOLDER).to(device)
    manifest = {} if tokenizer is None else {SEMANTIC_FOLDER: tokenizer.fingerprint}
    return tokenizer, *_load_sound(folder, manifest, device)


def copy_checkpoint(
    source: str | Path,
    folder: str | Path,
    *,
    change: Callable[[Path], Mapping[str, bytes]] | None = None,
    revision: str | None = None,
) -> Path:
    """Copy a checkpoint, whole or not at all, and return the copy's folder.

    Args:
        source: a local folder, or "name/repository".
        folder: absent, empty, or a checkpoint (which is replaced).
        change: given the source's folder, says which files the copy has beside or in place of those there.
        revision: branch, tag or commit on the Hub.

    Raises:
        CheckpointError: no checkpoint there, or the folder holds something else; what was there is untouched.
    """
    found, folder = checkpoint_folder(source, revision=revision), Path(folder).absolute()
    if folder == found.absolute():
        raise CheckpointError(f"{folder} cannot be copied onto itself; give another folder")
    _check_replaceable(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for name, content in {**checkpoint_files(found), **(change(found) if change else {})}.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        _put_in_place(partial, folder)
    except OSError as error:
        raise CheckpointError(f"cannot write checkpoint {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def checkpoint_files(folder: Path) -> dict[str, Path | bytes]:
    """Return the files of a checkpoint that may be shared: name in a repository -> file."""
    places = (folder, *(folder / part for part in PART_FOLDERS), folder / CODE_FOLDER)
    return {
        path.relative_to(folder).as_posix(): path
        for place in places
        for path in (place.iterdir() if place == folder else place.rglob("*"))
        if path.is_file() and any(path.relative_to(folder).match(pattern) for pattern in (*SAFE_FILES, CODE_FILES))
    }


def push_checkpoint(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    card: str | None = None,
    extra: Mapping[str, bytes] | None = None,
) -> str:
    """Upload a checkpoint to the Hub in one commit and return its address: readers find the old one or the new one.

    Args:
        folder: the checkpoint.
        repo_id: "name/repository", made if need be. What it held of another checkpoint goes in the same commit.
        private: whether a new repository is private. If so, one that is public already is refused.
        token: of the Hub; None takes the one of `hf auth login` or HF_TOKEN.
        card: text of the model card (`speechllm.model_card`); None sends the folder's README.md, if it has one.
        extra: files beside or in place of those of the folder (`speechllm.remote_code.remote_code_files`).

    Raises:
        CheckpointError: the folder is no whole checkpoint, or the Hub cannot be reached or refuses.
    """
    if not Path(folder).is_dir():
        raise CheckpointError(f"there is no folder {folder}; give the folder of a checkpoint")
    folder = checkpoint_folder(folder)
    files = {**checkpoint_files(folder), **(extra or {})}
    if card is not None:
        files[CARD_FILE] = card.encode()
    return push_repository(files, repo_id, replaces=[*SAFE_FILES, CODE_FILES], private=private, token=token)


def checkpoint_folder(source: str | Path, *, revision: str | None = None, token: str | bool | None = None) -> Path:
    """Return the folder of a checkpoint that is safe to load, downloaded if `source` is a repository on the Hub.

    Raises:
        CheckpointError: no checkpoint there, incomplete, weights that are not safetensors, or it cannot be fetched.
    """
    folder = Path(source)
    _recover(folder.absolute())
    if not folder.exists():
        if not isinstance(source, str) or not REPOSITORY.fullmatch(source):
            raise CheckpointError(f"no checkpoint at {source}; give a folder, or a Hub repository as name/repository")
        folder = _fetch(source, revision, token)
    manifest = read_manifest(folder)
    check_safe(folder)
    _check_whole(folder, manifest)
    return folder


def read_trained(manifest: Mapping[str, Any]) -> TrainedFor | None:
    """Return what a checkpoint was trained for, by its manifest; None if that does not say."""
    content = manifest.get(TRAINED_KEY)
    return None if content is None else TrainedFor.from_manifest(content)


def describe_checkpoint(source: str | Path, *, revision: str | None = None) -> dict[str, str]:
    """Return what a checkpoint holds, as lines for a person; no weights are loaded."""
    folder = checkpoint_folder(source, revision=revision)
    manifest = read_manifest(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    blocks = ", ".join(f"{name} {size:,}" for name, size in manifest["vocabulary"]["blocks"])
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    lines = {
        "folder": str(folder),
        "language model": f"{', '.join(config.get('architectures') or ['?'])}, vocabulary {config['vocab_size']:,}",
        "vocabulary": f"{blocks} (hash {manifest['vocabulary']['hash']})",
        "weights": f"{size / 1e6:,.1f} MB",
        **_describe_trained(read_trained(manifest)),
    }
    for name in PART_FOLDERS:
        fingerprint = manifest.get(name)
        here = (folder / name).is_dir()
        lines[name] = (f"yes ({fingerprint[:12]})" if fingerprint else "yes") if here else "none"
    return lines


def _describe_trained(trained: TrainedFor | None) -> dict[str, str]:
    if trained is None:
        return {"trained for": "not recorded"}
    seconds = trained.longest_seconds
    return {"trained for": str(trained), "longest speech": "none" if seconds is None else f"{seconds:.1f} s"}


def check_same_size(model: PreTrainedModel, processor: UnifiedProcessor, ours: str, theirs: str) -> None:
    """Raise unless the model has one row per id of the vocabulary; `ours` and `theirs` say where each came from."""
    size = processor.vocabulary.size
    matrices: dict[str, Any] = {"input": model.get_input_embeddings(), "output": model.get_output_embeddings()}
    rows = {f"{name} rows": matrix.weight.shape[0] for name, matrix in matrices.items()}
    rows["config.vocab_size"] = model.config.get_text_config(decoder=True).vocab_size
    for name, count in rows.items():
        if count != size:
            raise VocabularyError(
                f"{ours} has {name} {count:,}, but {theirs} has a vocabulary of {size:,} ids "
                f"({processor.vocabulary!r}); use the two that were made together"
            )


def _write(
    folder: Path,
    model: PreTrainedModel,
    processor: UnifiedProcessor,
    parts: Mapping[str, Part | None],
    trained: TrainedFor | None,
) -> None:
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    _generation_config(model, processor).save_pretrained(folder)
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    for name, part in parts.items():
        if part is not None:
            part.save_pretrained(folder / name)
            manifest[name] = getattr(part, "fingerprint", None)
    if trained is not None:
        manifest[TRAINED_KEY] = trained.manifest()
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _generation_config(model: PreTrainedModel, processor: UnifiedProcessor) -> GenerationConfig:
    """Return what plain generate() needs to stop where we stop."""
    tokenizer, eos = processor.text_tokenizer, processor.eos_id
    pad = tokenizer.pad_token_id
    return GenerationConfig(
        eos_token_id=eos, pad_token_id=eos if pad is None else pad, bos_token_id=tokenizer.bos_token_id
    )


def _put_in_place(partial: Path, folder: Path) -> None:
    """Rename the complete folder into its place. If we die between two renames, the next call undoes the first."""
    previous = _previous(folder)
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    try:
        partial.rename(folder)
    except OSError:
        _recover(folder)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _recover(folder: Path) -> None:
    previous = _previous(folder)
    if not folder.exists() and previous.is_dir():
        previous.rename(folder)


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace anything but a checkpoint: a wrong path must not cost somebody's files."""
    _recover(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file, expected a folder for the checkpoint; choose another path")
    entries = sorted(folder.iterdir())
    if entries and not (folder / MANIFEST_FILE).is_file():
        raise CheckpointError(
            f"{folder} holds other files ({entries[0].name}, ...) and no {MANIFEST_FILE}; choose an empty folder"
        )
    for entry in entries:
        if (entry.is_dir() and entry.name not in (*PART_FOLDERS, CODE_FOLDER)) or (
            entry.is_file() and entry.suffix not in REPLACEABLE
        ):
            raise CheckpointError(f"{folder} holds {entry.name}, which is no part of a checkpoint; move it away first")


def _fetch(repo_id: str, revision: str | None, token: str | bool | None) -> Path:
    # The manifest first: a wrong name should not cost the download of somebody's large model. Every repository has the
    # other file, and without any match the client would add a warning to our one line.
    folder = fetch_repository(repo_id, [MANIFEST_FILE, ".gitattributes"], revision=revision, token=token)
    if not (folder / MANIFEST_FILE).is_file():
        raise NoCheckpointError(f"{repo_id} on the Hub is no speechllm checkpoint: it has no {MANIFEST_FILE}")
    folder = fetch_repository(repo_id, SAFE_FILES, revision=revision, token=token)
    _refuse_pickles_left_behind(folder, repo_id, token)
    return folder


def check_safe(folder: Path) -> None:
    """Refuse pickled weights, and names that lead out of the folder.

    Raises:
        CheckpointError: the folder has either.
    """
    # In the Hub's cache a snapshot holds links into the repository's own folder, two levels up.
    inside = folder.resolve().parents[1] if folder.resolve().parent.name == "snapshots" else folder.resolve()
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if not path.resolve().is_relative_to(inside):
            raise CheckpointError(f"{path} leads out of the checkpoint folder; copy what it names in")
    _refuse_pickles(paths)
    for index in folder.rglob("*.safetensors.index.json"):
        shards = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()
        for shard in shards:
            if not (index.parent / str(shard)).resolve().is_relative_to(inside) or Path(str(shard)).is_absolute():
                raise CheckpointError(f"{index} names {shard!r}, which leads out of the checkpoint folder")


def _refuse_pickles(paths: Sequence[Path]) -> None:
    # Beside safetensors they do no harm: nobody reads them then.
    safe = {path.parent for path in paths if path.suffix == ".safetensors"}
    pickled = next((path for path in paths if path.suffix in PICKLED and path.parent not in safe), None)
    if pickled:
        raise CheckpointError(f"{pickled} is no safe weights format; save the checkpoint as safetensors")


def _refuse_pickles_left_behind(folder: Path, repo_id: str, token: str | bool | None) -> None:
    """Pickles are never fetched: where weights are missing in `folder`, raise if that is why."""
    parts = [path.parent.relative_to(folder) for path in folder.rglob("config.json")]
    bare = [part for part in parts if not any((folder / part).glob("*.safetensors"))]
    if bare:
        try:
            names = list_repository(repo_id, revision=folder.name, token=token)
        except CheckpointError:
            return  # offline: the part itself says what it misses, if it needs weights at all
        _refuse_pickles([Path(repo_id, name) for name in names if Path(name).parent in bare])


def _check_whole(folder: Path, manifest: Mapping[str, Any]) -> None:
    for name in PART_FOLDERS:
        saved = manifest.get(name) is not None or (name != SEMANTIC_FOLDER and name in manifest)
        if saved and not (folder / name).is_dir():
            raise CheckpointError(f"{folder} was saved with {name}/, which is missing; fetch the whole checkpoint")


def _load_lm(folder: Path, dtype: torch.dtype | None) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype or "auto", use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"the LM in {folder} cannot be loaded: {_first_line(error)}") from error


def _load_sound(
    folder: Path, manifest: Mapping[str, Any], device: str | torch.device
) -> tuple[Part | None, Part | None]:
    codec, acoustic = None, None
    if (folder / CODEC_FOLDER).is_dir():
        from speechllm.tokenizers.codec import load_codec

        codec = load_codec(folder / CODEC_FOLDER)
        wanted = manifest.get(CODEC_FOLDER)
        if wanted is not None and codec.fingerprint != wanted:
            raise CheckpointError(
                f"{folder / CODEC_FOLDER} has fingerprint {codec.fingerprint}, but the checkpoint was made with "
                f"{wanted}; restore the codec it came with"
            )
    if (folder / ACOUSTIC_FOLDER).is_dir():
        from speechllm.models.acoustic import load_acoustic

        acoustic = cast(Part, load_acoustic(folder / ACOUSTIC_FOLDER)).to(device).eval()
        known = {"semantic": manifest.get("semantic_tokenizer"), "codec": codec.fingerprint if codec else None}
        for name, ours in known.items():
            trained_with = getattr(acoustic.config, f"{name}_fingerprint")
            if trained_with and ours and trained_with != ours:
                raise CheckpointError(
                    f"{folder / ACOUSTIC_FOLDER} was trained with {name} {trained_with}, the checkpoint has {ours}; "
                    "use the parts that were made together"
                )
    return codec.to(device) if codec is not None else None, acoustic


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
