"""``EmbedJob``: what ``embed`` was asked for, with its inputs and its checkpoint looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from protclip import files
from protclip.checkpoint_names import is_name
from protclip.checkpoints import checkpoint_folder
from protclip.embeddings.hdf5 import require_h5
from protclip.embeddings.inputs import Inputs, find_inputs, resolve_content
from protclip.embeddings.previous import check_reusable
from protclip.embeddings.reading import Content, Embeddings, read_embeddings
from protclip.embeddings.settings import GPU_PART_ROWS, PART_ROWS, EmbedConfig
from protclip.errors import ConfigError
from protclip.inputs import DTYPES, Dtype
from protclip.manifest import read_claim
from protclip.model.record import ModelSizes, read_checkpoint_fingerprint, read_model_sizes
from protclip.terminal import echo
from protclip.uniprot.formats import describe_unused_columns
from protclip.units import Unit, Work


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedJob:
    """A config of which nothing is left open."""

    config: EmbedConfig
    """With paths that mean the same in every folder, and what nobody said."""
    inputs: Inputs
    content: Content
    """What is embedded of them."""
    part_rows: int
    """Of a part."""
    fingerprint: str
    """Of the model."""
    sizes: ModelSizes
    """Likewise."""

    @property
    def dimension(self) -> int:
        """Width of a vector."""
        if self.config.layer == "projection":
            return self.config.dimensions or self.sizes.projection_dim
        return (self.sizes.protein_encoder if self.content == "protein" else self.sizes.text_encoder).hidden_size

    def with_model(self, unit: Unit) -> Work:
        """The work of a unit that holds the model."""
        return Work(
            title="embedding",
            unit=unit,
            keeps_state=True,
            workers=self.config.num_workers,
            num_gpus=int(self.config.use_gpu),
        )


def resolve(
    config: EmbedConfig,
    of_input: Callable[[str], str] = files.absolute,
    of_output: Callable[[str], str] = files.absolute,
) -> EmbedJob:
    """Look at the inputs, the checkpoint and what is at the output; what can be refused before work begins is.

    Args:
        config: as a user gave it.
        of_input: what a path of an input means in every folder.
        of_output: likewise, of the output.

    Raises:
        ConfigError: for settings that do not go together.
        DataError: if an input is not there.
        CheckpointError: if the model is not there, or unfinished.
    """
    config = with_paths(config, of_input, of_output)
    inputs = find_inputs(config.inputs, id_column=config.id_column, value_column=config.column)
    content = resolve_content(inputs.kind, config.content)
    for line in describe_unused_columns(inputs.paths) if inputs.kind == "entries" else ():
        echo(f"embed: {line}", err=True)
    if config.format == "h5":
        require_h5()
    before = None if config.previous is None else _open_previous(config.previous, config.output)
    part_rows = config.part_rows or (GPU_PART_ROWS if config.use_gpu else PART_ROWS)
    config = replace(replace(config, content=content), dtype=config.dtype or _default_dtype(config, before))
    config = replace(config, long=config.long or (None if content == "text" else "truncate"), part_rows=part_rows)
    checkpoint = checkpoint_folder(config.checkpoint)
    fingerprint = read_checkpoint_fingerprint(checkpoint, verify=True)  # before anything finished is replaced
    if before is not None:
        moving = {
            name: value for name, value in config.settings().items() if name not in ("content", "format", "deduplicate")
        }
        # They are not among the settings where nobody gave them.
        check_reusable(before, fingerprint, content, {"layer": None, "dimensions": None, **moving})
    sizes = read_model_sizes(checkpoint)
    if config.dimensions is not None:
        _check_dimensions(config.dimensions, sizes)
    return EmbedJob(
        config=config,
        inputs=inputs,
        content=content,
        part_rows=part_rows,
        fingerprint=fingerprint,
        sizes=sizes,
    )


def _check_dimensions(dimensions: int, sizes: ModelSizes) -> None:
    """Refuse more than the model's, and say so where it was not trained for them."""
    if dimensions > sizes.projection_dim:
        raise ConfigError(
            f"--dimensions {dimensions}: an embedding of this model has {sizes.projection_dim}; give no more."
        )
    if dimensions not in sizes.trained_dimensions:
        trained = ", ".join(map(str, sizes.trained_dimensions))
        echo(
            f"embed: the model was trained for embeddings of {trained} dimensions, and not to be cut to {dimensions}; "
            "retrieval may be worse.",
            err=True,
        )


def with_paths(config: EmbedConfig, of_input: Callable[[str], str], of_output: Callable[[str], str]) -> EmbedConfig:
    """The same with other paths, such as absolute ones."""
    return replace(
        config,
        inputs=tuple(map(of_input, config.inputs)),
        # A name is looked up on each node.
        checkpoint=config.checkpoint if is_name(config.checkpoint) else of_input(config.checkpoint),
        output=of_output(config.output),
        previous=None if config.previous is None else of_input(config.previous),
    )


def _open_previous(previous: str, folder: str) -> Embeddings:
    if previous == folder:
        raise ConfigError(f"--previous {previous} is the output itself; give the new embeddings a folder of their own.")
    return read_embeddings(previous, verify=False)


def _default_dtype(config: EmbedConfig, previous: Embeddings | None) -> Dtype:
    """In which dtype the model computes where nobody says: as the vectors that are there, else as is fast here.

    On a processor without instructions for bfloat16 it takes several times as long as float32.
    """
    claim = None if config.overwrite else read_claim(config.output)
    claimed = claim.get("settings") if isinstance(claim, dict) else None  # of what other command there may be
    if isinstance(claimed, dict) and claimed.get("dtype") in DTYPES:
        return claimed["dtype"]  # type: ignore[no-any-return]
    if previous is not None:
        return previous.dtype
    from protclip.model.precision import decided

    return decided("auto", use_gpu=config.use_gpu)
