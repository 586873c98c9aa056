"""Published encoders: a folder in HuggingFace's layout, or a name on its hub, of which nothing is taken on trust.

Configuration, tokenizer and weights are read by our own readers. What the encoder computes with has to be there, in its
shape: HuggingFace's ``from_pretrained`` gives random numbers for what is missing. The check reads names and shapes
alone, without the weights.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from protclip import files
from protclip.data.tokenize import ESM2_VOCABULARY, TextTokenizer
from protclip.errors import ConfigError, ProtclipError
from protclip.model.encoders import MODEL_TYPES, Kind, build_encoder, encoder_config, known_fields
from protclip.model.official_names import renewed
from protclip.model.tensors import open_weights

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CONFIG, WEIGHTS, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
PREFIXES: dict[Kind, str] = {"protein": "esm.", "text": "bert."}
"""What stands before an encoder's names where the file holds a model with a head on top."""
ROTARY, LAYER_ROTARY = "rotary_embeddings.inv_freq", ".attention.self.rotary_embeddings.inv_freq"
_LAYER = re.compile(r"encoder\.layer\.\d+\.(?!attention\.self\.rotary_embeddings\.)")


class _Stored(NamedTuple):
    """A tensor in a file."""

    shape: tuple[int, ...]
    is_float: bool
    read: Callable[[], Tensor]


def is_local(name: str) -> bool:
    """Whether it is a folder, and no name on the hub."""
    return files.is_folder(files.absolute(name))


def pretrained_config(kind: Kind, name: str) -> PretrainedConfig:
    """The configuration of a published encoder.

    Raises:
        ConfigError: if it cannot be had, is of another kind, or asks for what our forward does not compute.
    """
    folder = _folder(kind, name)
    with _naming(kind, name):
        fields = files.read_json(files.join(folder, CONFIG))
        if not isinstance(fields, dict):
            raise ConfigError(f"{CONFIG} holds no fields")
        if fields.get("model_type") != MODEL_TYPES[kind]:
            raise ConfigError(f"is of type {fields.get('model_type')!r}, not {MODEL_TYPES[kind]!r}")
        if kind == "text" and (positions := fields.get("position_embedding_type", "absolute")) != "absolute":
            raise ConfigError(f"has {positions!r} positions; only 'absolute' are known")
        return encoder_config(kind, known_fields(kind, fields))


def pretrained_tokenizer(name: str, *, max_tokens: int) -> TextTokenizer:
    """The tokenizer of a published text encoder.

    Raises:
        ConfigError: if it cannot be had.
    """
    folder = _folder("text", name)
    with _naming("text", name):
        if not any(files.exists(files.join(folder, file)) for file in ("tokenizer.json", "vocab.txt")):
            raise ConfigError("holds neither tokenizer.json nor vocab.txt, so that its tokenizer cannot be had")
        return TextTokenizer.load(folder, max_tokens=max_tokens)


def check_pretrained(kind: Kind, name: str, config: Any) -> None:
    """Refuse a published encoder that is not whole, without reading its weights.

    Args:
        kind: which tower.
        name: folder or hub name.
        config: of ``pretrained_config``.

    Raises:
        ConfigError: naming a missing or damaged file, or a tensor that is missing, of another shape, or of a layer
            that the configuration does not have; or where a protein encoder has another alphabet than ESM-2's.
    """
    with torch.device("meta"):
        encoder = build_encoder(kind, config)
    folder = _folder(kind, name)
    vocabulary = files.join(folder, "vocab.txt")
    with _naming(kind, name), _open(folder) as stored:
        _sources(kind, encoder, stored)
        if kind == "protein" and files.exists(vocabulary):
            with files.open_read(vocabulary) as stream:
                letters = tuple(stream.read().decode().split())
            if letters != ESM2_VOCABULARY:
                raise ConfigError("vocab.txt is not ESM-2's alphabet in its order, which the model reads proteins by")


def load_pretrained(kind: Kind, encoder: nn.Module, name: str) -> None:
    """Copy the weights of a published encoder into one of the same shape, a tensor at a time.

    Raises:
        ConfigError: as ``check_pretrained``.
    """
    state, folder = encoder.state_dict(), _folder(kind, name)
    with _naming(kind, name), _open(folder) as stored:
        for ours, theirs in _sources(kind, encoder, stored).items():
            state[ours].copy_(stored[theirs].read())


def _sources(kind: Kind, encoder: nn.Module, stored: Mapping[str, _Stored]) -> dict[str, str]:
    """Our name → the file's, of all that the encoder computes with."""
    prefix = PREFIXES[kind] if any(name.startswith(PREFIXES[kind]) for name in stored) else ""
    found = {renewed(name.removeprefix(prefix)): name for name in stored if name.startswith(prefix)}
    state = encoder.state_dict()
    # Buffers follow from the configuration, and older files have them elsewhere or not at all.
    if missing := [name for name, _ in encoder.named_parameters() if name not in found]:
        raise ConfigError(f"its weights lack {len(missing)} tensors that the encoder needs, such as {missing[0]}")
    if beyond := sorted(name for name in found if _LAYER.match(name) and name not in state):
        raise ConfigError(f"its weights have {len(beyond)} tensors that {CONFIG} has no layer for, such as {beyond[0]}")
    if copies := [name for name in stored if name.endswith(LAYER_ROTARY)]:  # one for each layer, of which we have one
        found[ROTARY] = copies[0]
        for name in copies[1:]:
            if not torch.equal(stored[name].read(), stored[copies[0]].read()):
                raise ConfigError(f"{name} differs from that of another layer, which must be equal")
    sources = {name: found[name] for name in state if name in found}
    for name, theirs in sources.items():
        if stored[theirs].shape != tuple(state[name].shape):
            raise ConfigError(
                f"{theirs} has shape {stored[theirs].shape}, and {CONFIG} asks for {tuple(state[name].shape)}"
            )
        if not stored[theirs].is_float:
            raise ConfigError(f"{theirs} does not hold floating-point numbers; quantised weights are not known")
    return sources


@contextlib.contextmanager
def _open(folder: str) -> Iterator[dict[str, _Stored]]:
    """The tensors of a folder by name; safetensors where there are any."""
    path, index = files.join(folder, WEIGHTS), files.join(folder, f"{WEIGHTS}.index.json")
    with contextlib.ExitStack() as stack:
        if any(map(files.exists, (path, index))):
            readers = stack.enter_context(open_weights(path))
            yield {name: _stored(name, reader) for name, reader in readers.items()}
            return
        tensors: dict[str, Tensor] = {}
        for name in _pickled_names(folder):
            tensors |= stack.enter_context(_unpickled(files.join(folder, name)))
        yield {
            name: _Stored(tuple(tensor.shape), tensor.is_floating_point(), lambda tensor=tensor: tensor)  # type: ignore[misc]
            for name, tensor in tensors.items()
        }


def _stored(name: str, reader: Any) -> _Stored:
    part = reader.get_slice(name)
    return _Stored(
        tuple(part.get_shape()), part.get_dtype() in ("F64", "F32", "F16", "BF16"), lambda: reader.get_tensor(name)
    )


def _pickled_names(folder: str) -> list[str]:
    """The files of torch's older format, one or several."""
    index = files.join(folder, f"{PICKLED}.index.json")
    if files.exists(files.join(folder, PICKLED)) or not files.exists(index):
        names = [PICKLED]
    else:
        places = files.read_json(index)
        if not isinstance(places, dict) or not isinstance(places.get("weight_map"), dict):
            raise ConfigError(f"{PICKLED}.index.json has no weight_map")
        names = sorted({str(name) for name in places["weight_map"].values()})
    for name in names:
        if "/" in name or not files.exists(files.join(folder, name)):
            raise ConfigError(f"lacks {WEIGHTS if names == [PICKLED] else name}; its weights are incomplete")
    return names


@contextlib.contextmanager
def _unpickled(path: str) -> Iterator[dict[str, Tensor]]:
    """What torch's restricted reader, which makes nothing but tensors, finds in a pickle."""
    with files.local_copy(path) as local:
        try:
            # The newer form is mapped into memory, so that names and shapes cost next to nothing.
            state = torch.load(local, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(local))
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
            raise ConfigError(f"{path} cannot be read as weights ({_line(error)})") from error
        if not isinstance(state, dict):
            raise ConfigError(f"{path} does not hold weights by name")
        yield {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


@cache
def _folder(kind: Kind, name: str) -> str:
    """The folder; what is named on the hub is downloaded into HuggingFace's cache, once in a process."""
    if is_local(name):
        return files.absolute(name)
    from huggingface_hub import snapshot_download

    try:
        safe = [WEIGHTS, "model-*.safetensors", f"{WEIGHTS}.index.json"]
        folder = snapshot_download(name, allow_patterns=[CONFIG, *TOKENIZER_FILES, *safe])
        if not any(files.exists(files.join(folder, file)) for file in (WEIGHTS, f"{WEIGHTS}.index.json")):
            # Some of the older ones have nothing else.
            snapshot_download(name, allow_patterns=[PICKLED, "pytorch_model-*.bin", f"{PICKLED}.index.json"])
    except Exception as error:  # those of its HTTP client, which changes with its version, are among them
        raise ConfigError(
            f"model.{kind}.pretrained={name!r} is neither a folder with a model nor a hub name that can be reached "
            f"({_line(error)}); download it beforehand and give the folder's path."
        ) from error
    return folder


@contextlib.contextmanager
def _naming(kind: Kind, name: str) -> Iterator[None]:
    """Whatever is wrong is an error of the setting."""
    try:
        yield
    except (ProtclipError, UnicodeDecodeError) as error:
        why = _line(error).rstrip(".")
        raise ConfigError(f"model.{kind}.pretrained={name!r}: {why}; fetch it again, or name another.") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
