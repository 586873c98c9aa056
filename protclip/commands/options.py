"""Options of a command from the fields of its stage's config: one place has their names, types, defaults and words."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import MISSING, Field, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from protclip.fields import flat_fields


def config_options(
    config: type, *, argument: str, metavar: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a config, of those of configs within it too.

    Args:
        config: a frozen dataclass with a docstring under each field.
        argument: the field that is no option but what stands behind the command.
        metavar: how it is called in the help.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        docs = field_docs(config)
        # click lists in reverse what decorates a function.
        for field, hint in reversed(list(flat_fields(config))):
            if field.name == argument:
                several = get_origin(hint) is tuple
                command = click.argument(argument, metavar=metavar, nargs=-1 if several else 1, required=True)(command)
            else:
                command = _option(field, hint, docs[field.name])(command)
        return command

    return decorate


def field_docs(config: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, and of those within, on one line."""
    found: dict[str, str] = {}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(tree, ast.ClassDef)
    for line, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
            found[ast.unparse(line.target)] = inspect.cleandoc(ast.literal_eval(below.value)).replace("\n", " ")
    for hint in get_type_hints(config).values():
        if is_dataclass(hint):
            assert isinstance(hint, type)
            found |= field_docs(hint)
    return found


def _option(field: Field[Any], hint: Any, words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    name = f"--{field.name.replace('_', '-')}"
    if hint is bool:
        return click.option(name, field.name, is_flag=True, help=words)
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] if NoneType in get_args(hint) else [hint]
    several = get_origin(kinds[0]) is tuple
    kind = get_args(kinds[0])[0] if several else kinds[0]
    required = field.default is MISSING and field.default_factory is MISSING
    default: dict[str, Any] = {} if required else {"default": field.default}  # click takes any for a value, None too
    return click.option(
        name,
        field.name,
        type=click.Choice(get_args(kind)) if get_origin(kind) is Literal else str if len(kinds) > 1 else kind,
        multiple=several,
        required=required,
        show_default=field.default not in (None, MISSING, ()),
        help=words,
        **default,
    )
