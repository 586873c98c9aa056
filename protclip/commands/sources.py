"""What ``protclip search`` asks: an index on this machine, or that of a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protclip import files
from protclip.checkpoints import checkpoint_folder
from protclip.commands.startup import quick_start
from protclip.embeddings.reading import Content, read_embeddings
from protclip.errors import ConfigError, IndexMismatchError, NotFoundError
from protclip.index.manifest import read_index_manifest
from protclip.index.vector_files import format_of
from protclip.inputs import Dtype
from protclip.model.quality import quality_note, quality_of
from protclip.model.record import read_checkpoint_record
from protclip.questions import Answer, Options, Question
from protclip.retrieval import Retriever

ASKED_WITHOUT_MODEL = ("accession", "vectors")

SearchAll = Callable[[Sequence[Question], Options], list[Answer]]
"""``search_all`` of a retriever or a client."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """An index that can be asked."""

    name: str
    model: str
    """Fingerprint of the model that made it."""
    content: Content
    load: Callable[[], SearchAll]
    """Makes it ready."""
    note: str | None = None
    """On the quality of the model, where users should know of it."""


def index_here(index: str, checkpoint: str | None, asked: str, *, device: str, dtype: Dtype | None) -> Source:
    """An index on this machine, after all was checked that can be without loading it.

    Args:
        index: its folder.
        checkpoint: of the model that made it: a folder, name or URL.
        asked: what a question is; some need no model.
        device: of the model.
        dtype: of the model; None for that of the index.

    Raises:
        CheckpointError, DataError: if a folder is unfinished, damaged, or something else.
        ConfigError: if the checkpoint is needed and not given, or cannot be fetched.
        IndexMismatchError: if another model made the index.
    """
    manifest = read_index_manifest(index)
    note = None
    if checkpoint is not None:
        checkpoint = checkpoint_folder(checkpoint)
        record = read_checkpoint_record(checkpoint)
        manifest.check_model(record.fingerprint, index)
        note = quality_note(quality_of(record.metrics, record.data))
    elif asked not in ASKED_WITHOUT_MODEL:
        why = "the model that made the index, to embed it"
        if manifest.external_model is not None:
            why = f"and no checkpoint made this index: it holds vectors of {manifest.external_model}, which "
            why += "--accession and --vectors can ask"
        raise ConfigError(f"search --{asked} needs --checkpoint, {why}.")
    needed = None if asked in ASKED_WITHOUT_MODEL else checkpoint

    def load() -> SearchAll:
        with quick_start():
            return Retriever.load(index, checkpoint=needed, device=device, dtype=dtype).search_all

    return Source(name=index, model=manifest.model_fingerprint, content=manifest.content, load=load, note=note)


def index_of_server(
    addresses: Sequence[str], name: str | None, *, allow_partial: bool, not_taken: Sequence[str]
) -> Source:
    """An index of a server.

    Args:
        addresses: of the server, or of several that have the same indexes.
        name: of the index; None for ``default``.
        allow_partial: whether shards may be missing.
        not_taken: options that were given, and are for an index on this machine.

    Raises:
        ConfigError: if there are any, or an address or the key cannot be.
        NotFoundError: if the server has no index of that name.
        ServerError: if no server answers.
    """
    if not_taken:
        raise ConfigError(
            f"{', '.join(not_taken)}: is for an index on this machine; --server has a model. Leave one of the two out."
        )
    from protclip.client import Client

    client = Client(*addresses)
    indexes = {one["name"]: one for one in client.indexes()}
    wanted = name or "default"
    if wanted not in indexes:
        raise NotFoundError(
            f"index {wanted!r:.80}: the server has none of this name; its indexes are {', '.join(indexes)}. Leave "
            "--server out to search a folder on this machine."
        )
    index = indexes[wanted]

    def search_all(questions: Sequence[Question], options: Options) -> list[Answer]:
        answers = client.search_all(questions, options, index=wanted, allow_partial=allow_partial)
        if any(answer.index != index["fingerprint"] for answer in answers):
            raise IndexMismatchError(f"{addresses[0]}: went over to another index meanwhile; search again.")
        return answers

    note = client.info()["model"].get("quality_note")
    return Source(name=wanted, model=index["model"], content=index["content"], load=lambda: search_all, note=note)


def check_vectors(path: str, source: Source, exclude_self: bool) -> None:
    """Refuse vectors of another model, where they say of which they are, and rows without the ids that are needed.

    Raises:
        ConfigError, IndexMismatchError: for these.
    """
    if files.is_folder(path):
        if (model := read_embeddings(path, verify=False).model_fingerprint) != source.model:
            raise IndexMismatchError(
                f"{path}: its vectors were made by the model {model}, those of {source.name} by {source.model}; scores "
                "between two models mean nothing."
            )
    elif exclude_self and format_of(path) == "npy":
        raise ConfigError(
            f"{path}: rows of a .npy file have no ids by which --exclude-self knows them; give HDF5 or parquet."
        )
