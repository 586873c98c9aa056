"""What stands in files does not reach a terminal as it is: names may hold its commands, or turn a line round.

Tables and messages show such characters escaped, as ``\\x1b``; JSON has them escaped as JSON allows, the same values.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any


def printable(text: str) -> str:
    """The text with control and format characters and line ends escaped: one line that does nothing but stand there."""
    if text.isprintable():
        return text
    return "".join(letter if _harmless(letter) else _escaped(letter) for letter in text)


def echo(text: str, *, err: bool = False) -> None:
    """Print lines for people, ``printable`` each."""
    import click

    click.echo("\n".join(map(printable, text.split("\n"))), err=err)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON for people and programs: letters as they are, all that ``printable`` escapes as ``\\u001b``."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.replace("\n", "").isprintable():
        return text
    # Outside of strings JSON has no such letters but its line ends, and inside none of those.
    return "".join(letter if letter == "\n" or _harmless(letter) else json.dumps(letter)[1:-1] for letter in text)


def tell_on_stderr(line: str) -> None:
    """Print a line about what goes on, such as a download, beside what the command says."""
    echo(f"protclip: {line}", err=True)


def _harmless(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
