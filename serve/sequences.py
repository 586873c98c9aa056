"""The sequences of a release, looked up by accession: an index has their hashes alone."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Iterable, Iterator

import numpy as np

from protclip import files
from protclip.errors import ConfigError, DataError, NotFoundError
from protclip.hashing import hash64
from protclip.protanno.shards import SPLITS, read_pairs, read_row_group
from protclip.uniprot.entry import BadEntry
from protclip.uniprot.fasta import read_fasta, read_records
from protclip.uniprot.formats import expand_inputs, open_entries, reader_of
from protclip.uniprot.streams import open_stream


class Sequences:
    """Sequences by accession, in a byte a residue and some 35 a protein."""

    def __init__(self, records: Iterable[tuple[str, str]]) -> None:
        """All that are given, of one release or several.

        Args:
            records: accession and sequence of each protein.
        """
        self._text = bytearray()  # ACCESSION LF SEQUENCE of each
        key_N, start_N1 = array("q"), array("q", [0])
        for accession, sequence in records:
            key_N.append(hash(accession))
            self._text += f"{accession}\n{sequence}".encode()
            start_N1.append(len(self._text))
        self._start_N1 = np.frombuffer(start_N1, np.int64)
        keys = np.frombuffer(key_N, np.int64)
        self._place_N = np.argsort(keys, kind="stable").astype(np.uint32)
        self._key_N = keys[self._place_N]

    def __len__(self) -> int:
        return len(self._key_N)

    def find(self, accession: str, sequence_hash: int | None) -> str:
        """The sequence of an accession: of several, the one from which the index was made, or else the first.

        Args:
            accession: of the protein.
            sequence_hash: of its sequence, as the index has it; None where that is not known.

        Raises:
            NotFoundError: where it is not there, or is of another release than the index.
        """
        name, key = accession.encode("utf-8", "surrogatepass"), hash(accession)
        is_there = False
        for place in self._place_N[slice(*(np.searchsorted(self._key_N, key, side) for side in ("left", "right")))]:
            found, _, letters = self._text[self._start_N1[place] : self._start_N1[place + 1]].partition(b"\n")
            if found == name:
                is_there = True
                sequence = letters.decode()
                if sequence_hash in (None, hash64(sequence)):
                    return sequence
        if is_there:
            raise NotFoundError(
                f"accession {accession!r:.80}: the server's sequences have another one than the index was made from, "
                "of another release; give 'sequence' instead."
            )
        raise NotFoundError(f"accession {accession!r:.80}: the server's sequences lack it; give 'sequence' instead.")


def load_sequences(path: str) -> Sequences:
    """Those of a folder of pairs, or of files.

    Args:
        path: as ``check_sequences`` takes it.

    Raises:
        DataError: if they cannot be read to their end, or hold no protein.
    """
    # Nothing of what is read refers to itself, and there is much of it.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        found = Sequences(_pairs(path) if files.is_folder(path) else _entries(path))
    finally:
        if was_enabled:
            gc.enable()
    if not len(found):
        raise DataError(f"sequences {path}: hold no protein that can be read.")
    return found


def check_sequences(path: str) -> None:
    """Refuse what is not there, or of unknown kind.

    Args:
        path: absolute path, glob or URL of files of UniProtKB or FASTA, plain or .gz; or a folder of pairs.

    Raises:
        ConfigError: for a relative path.
        DataError: if it means nothing that can be read.
    """
    if not files.is_absolute(path):
        raise ConfigError(f"sequences {path!r} is relative, and replicas run in other folders; give an absolute path.")
    if files.is_folder(path):
        read_pairs(path)
    else:
        expand_inputs([path])


def _pairs(folder: str) -> Iterator[tuple[str, str]]:
    pairs = read_pairs(folder)
    for split in SPLITS:
        for group in pairs.row_groups(split):
            rows = read_row_group(group, columns=["accession", "sequence"])
            yield from zip(rows["accession"].to_pylist(), rows["sequence"].to_pylist(), strict=True)


def _entries(pattern: str) -> Iterator[tuple[str, str]]:
    for path in expand_inputs([pattern]):
        if reader_of(path) is read_fasta:
            with open_stream(path) as stream:
                for record in read_records(stream, path):
                    if not isinstance(record, BadEntry):
                        yield record.header.accession, record.sequence
        else:
            yield from (
                (entry.accession, entry.sequence) for entry in open_entries(path) if not isinstance(entry, BadEntry)
            )
