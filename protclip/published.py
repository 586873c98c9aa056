"""What Zhou et al. publish beside arXiv:2412.20014: their checkpoint, and ProtAnno.

Weights and data are in one record on Zenodo, the configuration in the authors' repository; tokenizers are in neither.
https://github.com/diaoshaoyou/ProtCLIP
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence

from protclip import files
from protclip.downloads import fetch_once
from protclip.errors import ConfigError, ProtclipError
from protclip.http_client import SOON_S, Client
from protclip.hub import download_tokenizer
from protclip.zenodo import API_URL, ZenodoRecord, read_record

RECORD = 15245588
CONFIG_URL = "https://raw.githubusercontent.com/diaoshaoyou/ProtCLIP/main/config/config.json"
TEXT_TOKENIZER = "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract"
"""On the HuggingFace hub: the biotext encoder from which the authors started."""
WEIGHTS = "model.safetensors"
PAPER = (
    "Zhou, Yin, Wu, Li, Fu, Chen, Wu and Wang. ProtCLIP: Function-Informed Protein Multi-Modal Learning. AAAI 2025, "
    "39(21):22937-22945, arXiv:2412.20014."
)


def fetch_published(
    output: str,
    staging: str,
    *,
    client: Client,
    api_url: str | None = None,
    config_url: str | None = None,
    text_tokenizer: str | None = None,
    tell: Callable[[str], None],
) -> None:
    """Make a checkpoint folder of the authors' published checkpoint.

    Args:
        output: the folder, path or URL.
        staging: a local folder for what is downloaded; an interrupted call goes on from there.
        client: of the network.
        api_url: of Zenodo's API, or a mirror; None for Zenodo's.
        config_url: of config.json; None for CONFIG_URL.
        text_tokenizer: folder with tokenizer.json or vocab.txt, or a name on the HuggingFace hub; None for
            TEXT_TOKENIZER.
        tell: gets lines: what it is, its licence, how to cite it, and the size before the download.

    Raises:
        ConfigError: without a network, if a server refuses, or if the disk has no room.
        DataError: if a server fails for good, the file changed since the download began, or it is damaged.
        CheckpointError: if what was downloaded is not the published format.
    """
    from protclip.model.official import CONFIG, import_official, read_beside_weights

    api_url, config_url = (api_url or API_URL).rstrip("/"), config_url or CONFIG_URL
    text_tokenizer = text_tokenizer or TEXT_TOKENIZER
    for url in (api_url, config_url):
        client.reach(url, patience_s=SOON_S)
    record = read_record(client, RECORD, api_url)
    weights = record.file(WEIGHTS)
    _tell_what(record, f"the checkpoint of ProtCLIP, published by its authors ({record.url})", tell)
    config = files.join(staging, CONFIG)
    with files.atomic_write(config) as stream:
        stream.write(client.get(config_url, lambda response: response.content))
    tokenizer, tokenizer_name = _tokenizer(text_tokenizer, files.join(staging, "text_tokenizer"), client)
    # What does not fit is refused before the weights are downloaded.
    read_beside_weights(staging, text_tokenizer=tokenizer)
    # Imported, they are wider: fp32 of fp16.
    fetched = fetch_once(client, weights, files.join(staging, WEIGHTS), spare_bytes=2 * weights.num_bytes, tell=tell)
    source = {
        **record.origin(),
        "files": {
            WEIGHTS: fetched,
            CONFIG: {"url": config_url, "sha256": files.sha256(config)},
        },
        "text_tokenizer": tokenizer_name,
        "fetched": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    tell("importing it")
    import_official(staging, output, text_tokenizer=tokenizer, source=source)


def fetch_protanno(
    folder: str,
    *,
    client: Client,
    names: Sequence[str] = (),
    api_url: str | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None],
) -> list[str]:
    """Download the authors' data set as it is published, each file with ``NAME.source``, which says what it is.

    Args:
        folder: for the files, path or URL.
        client: of the network.
        names: of the files in the record; none for all but the checkpoint.
        api_url: as of ``fetch_published``.
        overwrite: replace finished files and begin anew.
        tell: gets lines as of ``fetch_published``.

    Returns:
        The paths of the files.

    Raises:
        ConfigError, DataError: as ``fetch_published``.
    """
    api_url = (api_url or API_URL).rstrip("/")
    client.reach(api_url, patience_s=SOON_S)
    record = read_record(client, RECORD, api_url)
    chosen = list(dict.fromkeys(names)) or sorted(name for name in record.files if name != WEIGHTS)
    if not chosen:
        raise ConfigError(f"{record.url}: lists no file beside {WEIGHTS}; the data set is not there.")
    remotes = {name: record.file(name) for name in chosen}
    _tell_what(record, f"ProtAnno, published by its authors ({record.url})", tell)
    total = sum(remote.num_bytes for remote in remotes.values())
    tell(f"{len(remotes):,} files, {total:,} bytes: {', '.join(remotes)}")
    paths = {name: files.join(folder, name) for name in remotes}
    missing = {name: remote.num_bytes for name, remote in remotes.items() if not files.exists(f"{paths[name]}.source")}
    for name, remote in remotes.items():
        missing.pop(name, None)
        fetch_once(
            client,
            remote,
            paths[name],
            # Those that follow need room on the same disk.
            spare_bytes=0 if files.is_url(folder) else sum(missing.values()),
            origin=record.origin(),
            overwrite=overwrite,
            tell=tell,
        )
    return list(paths.values())


def unreadable(path: str) -> str | None:
    """Why ``curate`` cannot read a file; None where it can, as far as its beginning tells."""
    from protclip.uniprot.formats import open_entries

    try:
        next(open_entries(path), None)
    except ProtclipError as error:
        return str(error)
    return None


def _tokenizer(name: str, folder: str, client: Client) -> tuple[str, str]:
    """The folder of the text tokenizer, and what a manifest says of it."""
    if files.is_folder(files.absolute(name)):
        return files.absolute(name), files.absolute(name).rstrip("/").rpartition("/")[2]
    commit = download_tokenizer(name, folder, client=client)
    return folder, f"{name}@{commit}"


def _tell_what(record: ZenodoRecord, what: str, tell: Callable[[str], None]) -> None:
    from protclip.model.card import licence_of

    tell(f"{record.title} (https://doi.org/{record.doi}): {what}")
    tell(f"Its record states {licence_of(record.license)}. Cite: {PAPER}")
