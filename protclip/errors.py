"""Everything a user can cause is a ProtclipError; our own bugs are asserts.

    ProtclipError
    ├── ConfigError               a setting, an argument or an environment that cannot work
    ├── DataError                 what was given cannot be read as what it claims to be: a file, a row
    │   └── RequestError          … and it is the question itself: a sequence, a text, a filter, a number of answers
    │       ├── NotFoundError     an accession that the index does not hold
    │       └── PayloadTooLargeError
    ├── CheckpointError           a checkpoint folder that is incomplete, damaged or of another kind
    └── IndexMismatchError        an index or embeddings made by another model, or of another shape

So a RequestError is the fault of whoever asks, in whatever layer it is found; all else is the fault of the set-up. A
message holds the value, the place, what is allowed and what to do.
"""


class ProtclipError(Exception):
    """Base of all errors that a user can cause and mend."""


class ConfigError(ProtclipError):
    """A setting, an argument or an environment that cannot work."""


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
