"""Everything a user can cause is a ProtclipError; our own bugs are asserts.

    ProtclipError
    ├── ConfigError               a setting, an argument or an environment that cannot work
    │   └── OtherRunError         … since the output holds part of a run that differs
    ├── DataError                 what was given cannot be read as what it claims to be: a file, a row
    │   └── RequestError          … and it is the question itself: a sequence, a text, a filter, a number of answers
    │       ├── NotFoundError     an accession that the index does not hold
    │       └── PayloadTooLargeError
    ├── CheckpointError           a checkpoint folder that is incomplete, damaged or of another kind
    ├── IndexMismatchError        an index or embeddings made by another model, or of another shape
    └── ServerError               a server that cannot be reached, has too much to do, or fails

So a RequestError is the fault of whoever asks, in whatever layer it is found; all else is the fault of the set-up. A
message holds the value, the place, what is allowed and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorAnswer:
    """The error that a server answered (docs/serving.md)."""

    address: str
    """Of the server."""
    status: int
    """Of HTTP."""
    type: str
    """As the server calls it; of an answer in another form, HTTP's phrase."""
    message: str
    """As it came, which may hold a terminal's commands; the text of the exception has them escaped."""
    request_id: str | None
    """As in the server's log."""


class ProtclipError(Exception):
    """Base of all errors that a user can cause and mend."""

    answer: ErrorAnswer | None = None
    """What a server said, where ``protclip.client`` tells of it."""


class ConfigError(ProtclipError):
    """A setting, an argument or an environment that cannot work."""


class OtherRunError(ConfigError):
    """An output that holds part of a run of other settings or inputs, or by other software."""


class DataError(ProtclipError):
    """An input file or row that cannot be read as what it claims to be."""


class RequestError(DataError):
    """A question that cannot be answered as it was asked: what is wrong with it is named."""


class NotFoundError(RequestError):
    """What a question names is not there."""


class PayloadTooLargeError(RequestError):
    """A request body above the server's limit."""


class CheckpointError(ProtclipError):
    """A checkpoint folder that is incomplete, damaged or of another kind."""


class IndexMismatchError(ProtclipError):
    """An index or a folder of embeddings that does not belong to the model it is used with."""


class ServerError(ProtclipError):
    """A server that cannot be reached, has too much to do, or fails."""


class MissingDataError(DataError):
    """A file that a benchmark needs is not there."""
