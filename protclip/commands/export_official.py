"""``protclip export-official``: an imported checkpoint back into the authors' format."""

from __future__ import annotations

import click

from protclip import files
from protclip.checkpoint_names import absolute_checkpoint
from protclip.checkpoints import checkpoint_folder
from protclip.errors import ConfigError
from protclip.terminal import echo


@click.command()
@click.argument("checkpoint", metavar="CKPT")
@click.option("--output", required=True, help="The folder to write: a path or an fsspec URL.")
@click.option("--overwrite", is_flag=True, help="Replace config.json and model.safetensors there.")
def main(*, checkpoint: str, output: str, overwrite: bool) -> None:
    """Write CKPT, made by import-official or fetch-model published, in the format in which the authors publish.

    The same bytes come back; weights that were changed since are rounded to the published type.
    """
    from protclip.model.official import CONFIG, WEIGHTS, export_official

    checkpoint, output = checkpoint_folder(absolute_checkpoint(checkpoint)), files.absolute(output)
    found = [name for name in (CONFIG, WEIGHTS) if files.exists(files.join(output, name))]
    if found and (checkpoint == output or not overwrite):
        raise ConfigError(f"output {output} holds {found[0]} already; choose another folder, or give --overwrite.")
    num_tensors = export_official(checkpoint, output)
    echo(f"{num_tensors} tensors in the published format in {output}")
