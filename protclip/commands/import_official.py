"""``protclip import-official``: the authors' published checkpoint into ours."""

from __future__ import annotations

from collections import Counter

import click

from protclip import files
from protclip.errors import CheckpointError, ConfigError
from protclip.manifest import read_manifest
from protclip.terminal import echo


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--output", required=True, help="The checkpoint folder to write: a path or an fsspec URL.")
@click.option("--protein-tokenizer", metavar="DIR", help="Folder with vocab.txt; ESM-2's alphabet if not given.")
@click.option(
    "--text-tokenizer",
    metavar="DIR",
    help="Folder of the text encoder with tokenizer.json or vocab.txt, such as PubMedBERT's; DIR itself if not given.",
)
@click.option("--overwrite", is_flag=True, help="Replace a finished checkpoint.")
def main(
    *, folder: str, output: str, protein_tokenizer: str | None, text_tokenizer: str | None, overwrite: bool
) -> None:
    """Convert the checkpoint that the authors publish into one of ours.

    DIR holds config.json (model_type FST) and model.safetensors. Every tensor is used, or listed with the reason why
    not; the full list is in the checkpoint's manifest.json. export-official writes the same files back.
    """
    from protclip.model.official import EXTRAS, import_official

    folder, output = files.absolute(folder), files.absolute(output)
    _check_output(output, overwrite=overwrite)
    record = import_official(folder, output, protein_tokenizer=protein_tokenizer, text_tokenizer=text_tokenizer)
    echo(
        f"{record['num_tensors']} tensors, {record['num_elements']:,} elements, {'/'.join(record['dtypes'])}; "
        f"{len(record['mapped'])} used in fp32, {len(record['beside'])} kept beside the model in {EXTRAS}:"
    )
    for reason, count in Counter(record["beside"].values()).items():
        echo(f"{count:6}  {reason}")
    echo(f"checkpoint {output}")


def _check_output(output: str, *, overwrite: bool) -> None:
    """Nothing but a finished checkpoint is ever replaced: other models' folders hold files of the same names."""
    from protclip.model.record import KIND

    fs, inner = files.filesystem(output)
    if not fs.exists(inner) or not fs.ls(inner, detail=False):
        return
    if not overwrite:
        raise ConfigError(
            f"output {output} is not empty; choose another folder, or give --overwrite to replace a checkpoint."
        )
    try:
        read_manifest(output, KIND, error=CheckpointError)
    except CheckpointError as error:
        raise ConfigError(
            f"output {output} is not empty and no finished checkpoint ({error}); choose another."
        ) from error
