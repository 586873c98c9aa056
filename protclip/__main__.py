"""The command ``protclip``, also ``python -m protclip``.

Commands are named by strings and imported when called, so that ``protclip --help`` starts at once, and those that need
no Ray work where it is not installed.
"""

from __future__ import annotations

import importlib
import re
import sys

import click

from protclip.errors import ProtclipError
from protclip.extras import require
from protclip.terminal import echo
from protclip.version import __version__

# name → (module:command, one line of help)
COMMANDS = {
    "fetch-uniprot": ("protclip.commands.fetch_uniprot:main", "Fetch entries or release files from UniProt's servers."),
    "fetch-model": ("protclip.commands.fetch_model:main", "Fetch a model to ask: the authors' own, or one of a hub."),
    "fetch-protanno": ("protclip.commands.fetch_protanno:main", "Fetch the data set that the authors publish."),
    "curate": ("ray_jobs.curate.main:main", "Turn UniProtKB files into protein-text pairs."),
    "pretrain": ("ray_jobs.pretrain.main:main", "Train a model on a folder of pairs."),
    "embed": ("ray_jobs.embed.main:main", "Embed proteins or texts."),
    "index": ("ray_jobs.index.main:main", "Build a searchable index of embeddings."),
    "stats": ("protclip.commands.stats:main", "Describe a folder of pairs, beside the published data sets."),
    "evaluate": ("ray_jobs.evaluate.main:main", "Evaluate models on benchmarks, and write a report."),
    "pipeline": ("ray_jobs.pipeline.main:main", "Do all stages, from data to a served index, as one job."),
    "status": ("protclip.commands.status:main", "Show how far a pipeline or a stage is, from its folder alone."),
    "search": ("protclip.commands.search:main", "Search an index by text, sequence or accession."),
    "explain": ("protclip.commands.explain:main", "Show which residues of a protein match a text."),
    "serve": ("serve.main:main", "Serve embedding and search over HTTP on this machine."),
    "swap-index": ("serve.swap:main", "Replace the index of a running server, without a failed request."),
    "make-key": ("serve.make_key:main", "Make a key for a client of a server."),
    "import-official": (
        "protclip.commands.import_official:main",
        "Convert the authors' published checkpoint into ours.",
    ),
    "export-official": (
        "protclip.commands.export_official:main",
        "Convert an imported checkpoint back into the authors' format.",
    ),
    "synthesize": ("protclip.commands.synthesize:main", "Write a synthetic proteome, for trials without data."),
    "quickstart": ("ray_jobs.quickstart.main:main", "Run everything once on this machine, from data to queries."),
}

ON_RAY = ("pretrain", "pipeline", "serve", "swap-index", "make-key", "quickstart")
"""What needs Ray, or what comes with it, whatever it is given; ``curate`` and ``embed`` do where there is much to do,
``index`` where there are several subindexes."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in ON_RAY:
            require("ray", extra="ray", what=f"protclip {cmd_name}")
        module, name = COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="protclip")
def cli() -> None:
    """ProtCLIP: find proteins by description and by sequence, and train the models for it."""


def main() -> None:
    """Run the command; an error that the user can mend is one line and exit status 1."""
    importlib.import_module("cluster.environment").prepare_environment()
    try:
        cli(prog_name="protclip", windows_expand_args=False)
    except ProtclipError as error:
        # A message of several lines has them indented: a line end in a name begins no line of its own.
        echo(re.sub(r"\n(?! )", "\n  ", f"{type(error).__name__}: {error}"), err=True)
        sys.exit(1)
    except Exception as error:
        from protclip import files

        if not files.is_store_error(error):
            raise
        echo(f"ConfigError: the object store does not answer as it should ({error}).", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
