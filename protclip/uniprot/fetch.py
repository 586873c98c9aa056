"""UniProtKB from UniProt's own servers: the entries that a query finds, or a file of the current release.

A query is asked for page by page, as UniProt advises: each page names the next by a cursor. A page is counted before
it is kept, since a server that breaks off in the middle of one ends it as if it were whole.
https://www.uniprot.org/help/api_queries, https://www.uniprot.org/help/pagination
"""

from __future__ import annotations

import datetime
import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode, urljoin
from xml.etree import ElementTree

import requests

from protclip import files
from protclip.downloads import Partial, RemoteFile, fetch_file, progress_bar
from protclip.errors import ConfigError, DataError
from protclip.http_client import Client, IncompleteError
from protclip.version import __version__

REST_URL = "https://rest.uniprot.org"
RELEASE_URL = "https://ftp.uniprot.org/pub/databases/uniprot/current_release/knowledgebase/complete"
PAGE_ENTRIES = 500
"""The most that UniProt gives at once."""

FORMATS = {".dat": "txt", ".txt": "txt", ".tsv": "tsv", ".fasta": "fasta", ".xml": "xml"}
"""File endings, ``.gz`` set aside, and how the service calls the format."""
TSV_FIELDS = (
    "accession,id,reviewed,protein_name,organism_name,organism_id,cc_function,cc_subcellular_location,cc_similarity,"
    "protein_existence,ec,gene_names,gene_primary,sequence"
)
"""What curation reads of a table: https://www.uniprot.org/help/return_fields."""

_ENTRIES = {
    "txt": re.compile(rb"^ID   .*?^//\n", re.DOTALL | re.MULTILINE),
    "tsv": re.compile(rb"^[^\n]+\n", re.MULTILINE),
    "fasta": re.compile(rb"^>[^\n]*\n(?:[^>\n][^\n]*\n)*", re.MULTILINE),
    "xml": re.compile(rb"<entry[ >].*?</entry>\s*", re.DOTALL),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One page of an answer."""

    head: bytes
    """What stands before the entries: the header of a TSV or XML file."""
    entries: list[bytes]
    tail: bytes
    """What stands after them: the end of an XML file."""
    total: int
    """Entries of all pages."""
    release: str | None
    release_date: str | None
    next_url: str | None


def fetch_query(
    query: str,
    output: str,
    *,
    client: Client,
    now: datetime.datetime,
    base_url: str = REST_URL,
    limit: int | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the entries that a query finds to a file, and beside it, as ``OUTPUT.json``, what they are.

    A page that has arrived is never asked for again: killed and called again, it goes on with the next.

    Args:
        query: in UniProt's syntax, such as ``reviewed:true AND organism_id:9606``.
        output: path or URL; its ending, one of FORMATS with or without ``.gz``, decides on the format.
        client: of the network, which was found to be there.
        now: for the record.
        base_url: of the service.
        limit: entries at most, in the service's order, the best annotated first.
        overwrite: replace a finished output and begin anew.
        tell: gets a line with the number of entries before they are fetched.

    Returns:
        The record.

    Raises:
        ConfigError: if the query is refused or finds nothing, or the output is finished or that of another query.
        DataError: if the service fails for good, or the release changed while it was asked.
    """
    form = format_of(output)
    url = _first_url(query, form, base_url, limit)
    with Partial(output, overwrite=overwrite) as part:
        state = part.state
        if state is not None and (state["url"], state["limit"]) != (url, limit):
            raise ConfigError(f"output {output} was begun with another query; --overwrite begins anew.")
        if state is None:
            state = {"url": url, "limit": limit, "next": url, "entries": 0, "bytes": 0}
        bar = None
        while not _is_complete(state):
            page = client.get(state["next"], partial(_read_page, form=form, limit=limit, num_before=state["entries"]))
            if "total" not in state:
                if not page.total:
                    raise ConfigError(f"no entry of UniProtKB matches the query {query!r}; check it on uniprot.org.")
                state |= {"total": page.total, "release": page.release, "release_date": page.release_date}
            _check_same_answer(state, page, output)
            if bar is None:
                tell(f"{_wanted(state):,} entries of UniProt {page.release} to fetch{_already(state['entries'])}")
                bar = progress_bar(total=_wanted(state), initial=state["entries"], unit="entry")
            entries = page.entries[: _wanted(state) - state["entries"]]
            head = b"" if state["bytes"] else page.head
            part.cut(state["bytes"])
            state = {**state, "entries": state["entries"] + len(entries), "next": page.next_url}
            tail = page.tail if _is_complete(state) else b""
            part.stream.write(_packed(b"".join([head, *entries, tail]), output))
            state["bytes"] = part.stream.tell()
            part.commit(state)
            bar.update(len(entries))
        if bar is not None:
            bar.close()
        if state["entries"] != _wanted(state):
            raise DataError(
                f"{url}: {state['entries']:,} entries arrived, but {_wanted(state):,} were announced. Begin anew with "
                "--overwrite; if it fails again, the service is at fault."
            )
        record = {
            "query": query,
            "format": form,
            "limit": limit,
            **{name: state[name] for name in ("url", "release", "release_date", "entries", "bytes")},
            "sha256": files.sha256(str(part.path)),
            **_provenance(now),
        }
        part.finish(record)
    return record


def fetch_release_file(
    name: str,
    output: str,
    *,
    client: Client,
    now: datetime.datetime,
    base_url: str = RELEASE_URL,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Download a file of the current release, checked against the release's own list of sizes and MD5s.

    Args:
        name: of the file, such as ``uniprot_sprot.dat.gz``.
        output: path or URL of the file to write.
        client: of the network, which was found to be there.
        now: for the record.
        base_url: folder with the file and ``RELEASE.metalink``.
        overwrite: replace a finished output and begin anew.
        tell: gets a line with the size before it is downloaded.

    Returns:
        The record, written to ``OUTPUT.json`` too.

    Raises:
        ConfigError: if the release has no such file, the disk no room, or the output is finished or another file's.
        DataError: if the server fails for good, the release changed since the download began, or the file is damaged.
    """
    listing = f"{base_url}/RELEASE.metalink"
    release, size, md5 = _listed(client.get(listing, lambda response: response.content), name, listing)
    remote = RemoteFile(url=f"{base_url}/{name}", num_bytes=size, checksum=f"md5:{md5}", listed_in="RELEASE.metalink")
    with Partial(output, overwrite=overwrite) as part:
        record = fetch_file(
            client,
            remote,
            part,
            facts={"release": release},
            tell=lambda done: tell(f"{name} of UniProt {release}: {size:,} bytes to download{_already(done)}"),
        )
        record |= _provenance(now)
        part.finish(record)
    return record


def format_of(output: str) -> str:
    """The service's name of the format that a file's ending means.

    Raises:
        ConfigError: if the ending is unknown.
    """
    name = output.lower().removesuffix(".gz")
    for ending, form in FORMATS.items():
        if name.endswith(ending):
            return form
    raise ConfigError(
        f"output {output}: the name's ending decides on the format; known are {', '.join(FORMATS)}, each with or "
        "without .gz."
    )


def _first_url(query: str, form: str, base_url: str, limit: int | None) -> str:
    parameters = {"query": query, "format": form, "size": str(_page_size(limit))}
    if form == "tsv":
        parameters["fields"] = TSV_FIELDS
    return f"{base_url}/uniprotkb/search?{urlencode(parameters)}"


def _page_size(limit: int | None) -> int:
    return PAGE_ENTRIES if limit is None else min(PAGE_ENTRIES, limit)


def _read_page(response: requests.Response, *, form: str, limit: int | None, num_before: int) -> Page:
    """Split an answer into its entries, which must be as many as it announces."""
    try:
        total = int(response.headers["X-Total-Results"])
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{response.url}: the answer has no X-Total-Results; it is not from UniProt's REST service."
        ) from error
    body = response.content
    if body and not body.endswith(b"\n"):
        body += b"\n"
    start = body.find(b"\n") + 1 if form == "tsv" else 0
    matches = list(_ENTRIES[form].finditer(body, start))
    if len(matches) != (expected := min(_page_size(limit), total - num_before)):
        raise IncompleteError(f"a page has {len(matches)} entries instead of {expected}")
    entries = [match[0] for match in matches]
    head = body[: matches[0].start()] if matches else body
    if form == "tsv" and any(row.count(b"\t") != head.count(b"\t") for row in entries):
        raise IncompleteError("a row of a page is cut short")
    link = response.links.get("next")
    return Page(
        head=head,
        entries=entries,
        tail=body[matches[-1].end() :] if matches else b"",
        total=total,
        release=response.headers.get("X-UniProt-Release"),
        release_date=response.headers.get("X-UniProt-Release-Date"),
        next_url=urljoin(response.url, link["url"]) if link else None,
    )


def _check_same_answer(state: dict[str, Any], page: Page, output: str) -> None:
    if state["release"] != page.release:
        raise _changed_release(output, state["release"], page.release)
    if state["total"] != page.total:
        raise DataError(
            f"output {output}: the query found {state['total']:,} entries when it was begun and {page.total:,} now; "
            "--overwrite begins anew."
        )


def _changed_release(output: str, before: str | None, now: str | None) -> DataError:
    return DataError(
        f"output {output} was begun with UniProt {before}, and the server is at {now} now: entries of two releases do "
        "not go together. --overwrite begins anew."
    )


def _already(num_here: int) -> str:
    return f", {num_here:,} of them here already" if num_here else ""


def _wanted(state: dict[str, Any]) -> int:
    return int(state["total"] if state["limit"] is None else min(state["limit"], state["total"]))


def _is_complete(state: dict[str, Any]) -> bool:
    return "total" in state and (state["entries"] == _wanted(state) or state["next"] is None)


def _packed(data: bytes, output: str) -> bytes:
    # Each page is a gzip member of its own, so that a file can be continued; readers take members as one stream.
    return gzip.compress(data, mtime=0) if output.endswith(".gz") else data


def _listed(metalink: bytes, name: str, source: str) -> tuple[str, int, str]:
    """Release, size and MD5 of a file as RELEASE.metalink has them."""
    try:
        root = ElementTree.fromstring(metalink)
        release = root.findtext(".//{*}version")
        entries = {entry.attrib["name"]: entry for entry in root.findall(".//{*}file")}
    except (ElementTree.ParseError, KeyError) as error:
        raise DataError(f"{source}: is not a list of release files ({error}); check --base-url.") from error
    if name not in entries:
        known = [known for known in entries if known.startswith("uniprot")] or list(entries)
        raise ConfigError(f"{source}: lists no file {name!r}; it has {', '.join(sorted(known))}.")
    size = entries[name].findtext(".//{*}size")
    md5 = next((e.text for e in entries[name].findall(".//{*}hash") if e.get("type", "").lower() == "md5"), None)
    if release is None or size is None or md5 is None:
        raise DataError(f"{source}: gives no release, size or MD5 for {name}, so that it could not be checked.")
    return release, int(size), md5.strip().lower()


def _provenance(now: datetime.datetime) -> dict[str, str]:
    return {
        "fetched": now.astimezone(datetime.UTC).isoformat(timespec="seconds"),
        "license": "CC BY 4.0, The UniProt Consortium",
        "software": f"protclip {__version__}",
    }
