"""``protclip fetch-model``: a checkpoint from where it is published, by its name."""

from __future__ import annotations

import click

from protclip import files
from protclip.errors import ConfigError
from protclip.terminal import echo


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--output", help="Folder to write, a path or an fsspec URL. Default: the cache, where NAME is found.")
@click.option(
    "--text-tokenizer",
    metavar="DIR|HUB_NAME",
    help="Of published: folder with tokenizer.json or vocab.txt of the text encoder. Default: PubMedBERT's, from the "
    "HuggingFace hub.",
)
@click.option("--config", "config_url", metavar="URL", help="Of published: its config.json. Default: the authors'.")
@click.option("--base-url", metavar="URL", help="Of published: Zenodo's API, or a mirror.")
@click.option("--overwrite", is_flag=True, help="Fetch it anew: replace a finished checkpoint, discard an unfinished.")
def main(
    *,
    name: str,
    output: str | None,
    text_tokenizer: str | None,
    config_url: str | None,
    base_url: str | None,
    overwrite: bool,
) -> None:
    """Fetch a checkpoint, whose NAME every --checkpoint and ProtCLIP.from_pretrained take.

    NAME is `published`, the checkpoint of ProtCLIP's authors, which is converted into our format; org/name or
    org/name@REVISION on the HuggingFace hub (HF_ENDPOINT names another hub); or the URL of a checkpoint folder.

    The size is printed before the download, and sizes and checksums are compared with those that the server lists.
    After an interruption, give the same command again, and it goes on where it was. The cache is ~/.cache/protclip, or
    the folder named by PROTCLIP_CACHE; what is there is used without a network, and never replaced by itself.

    \b
        protclip fetch-model published
        protclip search my-index --checkpoint published --text "FUNCTION: Hydrolyses ATP."
    """
    from protclip.checkpoint_cache import Publication, fetch_checkpoint, fetch_into_cache
    from protclip.checkpoint_names import PUBLISHED, kind_of_checkpoint
    from protclip.model.record import read_checkpoint_fingerprint

    publication = Publication(api_url=base_url, config_url=config_url, text_tokenizer=text_tokenizer)
    if name != PUBLISHED and publication != Publication():
        raise ConfigError(
            f"--text-tokenizer, --config and --base-url are for {PUBLISHED!r}; {name} needs none of them."
        )
    kind_of_checkpoint(name)
    if output is None:
        folder = fetch_into_cache(name, publication=publication, overwrite=overwrite, tell=echo)
    else:
        folder = files.absolute(output)
        fetch_checkpoint(name, folder, publication=publication, overwrite=overwrite, tell=echo)
    how = f"--checkpoint {name}" if output is None else f"--checkpoint {output}"
    echo(f"fetch-model: {name}, fingerprint {read_checkpoint_fingerprint(folder)} → {folder} ({how})")
