"""The quickstart's own proteins: well-described ones of UniProt, fetched once and kept in the user's cache folder."""

from __future__ import annotations

import datetime
from collections.abc import Callable

from urllib3.util.retry import Retry

from protclip import files
from protclip.cache import cache_folder
from protclip.http_client import Client
from protclip.uniprot.fetch import REST_URL, fetch_query

FILE_NAME = "quickstart.tsv.gz"
NUM_ENTRIES = 2000
ORGANISMS = (9606, 10090, 3702, 559292, 83333)
"""Human, mouse, Arabidopsis, yeast, Escherichia coli: the best described ones of most kinds of life."""
QUERY = (
    "reviewed:true AND fragment:false AND length:[50 TO 400] AND "
    "cc_function:* AND cc_scl_term:* AND cc_similarity:* AND "
    f"({' OR '.join(f'organism_id:{organism}' for organism in ORGANISMS)})"
)
"""All four properties, and short enough for a quick training on a CPU."""
REACH_S = 5.0
"""A machine without a network must not cost more."""
RETRIES = Retry(total=2, backoff_factor=1, retry_after_max=10)
"""Little patience: there is another way to a trial than this download."""


def uniprot_sample(tell: Callable[[str], None]) -> tuple[str, str]:
    """The cached file, downloaded if it is the first time, and what is in it.

    Args:
        tell: gets a line before a download.

    Raises:
        ProtclipError: if it is not here and cannot be had.
    """
    path = str(cache_folder() / FILE_NAME)
    if not files.exists(f"{path}.json"):  # written last
        client = Client(retries=RETRIES)
        client.reach(REST_URL, patience_s=REACH_S)
        now = datetime.datetime.now(datetime.UTC)
        # A download this small is not worth going on with: the release may have changed since.
        fetch_query(
            QUERY, path, client=client, now=now, base_url=REST_URL, limit=NUM_ENTRIES, overwrite=True, tell=tell
        )
    record = files.read_json(f"{path}.json")
    return path, f"{record['entries']:,} reviewed proteins of UniProt {record['release']}, CC BY 4.0, from {path}"
