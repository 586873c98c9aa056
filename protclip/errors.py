"""Everything a user can cause is a ProtclipError; our own bugs are asserts.

    ProtclipError
    ├── ConfigError            a setting, an argument or an environment that cannot work
    ├── DataError              an input file or row that cannot be read as what it claims to be
    ├── CheckpointError        a checkpoint folder that is incomplete, damaged or of another kind
    ├── IndexMismatchError     an index or embeddings made by another model, or of another shape
    └── RequestError           a request to the server that it will not answer
        └── PayloadTooLargeError

A message holds the value, the place, what is allowed and what to do.
"""


class ProtclipError(Exception):
    """Base of all errors that a user can cause and mend."""


class ConfigError(ProtclipError):
    """A setting, an argument or an environment that cannot work."""


class DataError(ProtclipError):
    """An input file or row that cannot be read as what it claims to be."""


class CheckpointError(ProtclipError):
    """A checkpoint folder that is incomplete, damaged or of another kind."""


class IndexMismatchError(ProtclipError):
    """An index or a folder of embeddings that does not belong to the model it is used with."""


class RequestError(ProtclipError):
    """A request to the server that it will not answer; the message names the field."""


class PayloadTooLargeError(RequestError):
    """A request body above the server's limit."""
