"""``protclip pipeline``: from data to a served index, as one job that can be killed at any moment."""

from __future__ import annotations

import click

from protclip.pipeline.settings import load_pipeline
from protclip.terminal import echo
from ray_jobs.cluster import end_with_ray, resolve_output
from ray_jobs.pipeline.run import plan, run_pipeline, with_paths
from ray_jobs.pretrain.run import find_config


@click.command()
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Make a stage again whose finished output is of other settings or inputs, and what comes of it.",
)
@click.option("--dry-run", is_flag=True, help="Check the settings and print what would be done; write nothing.")
def main(config: str, overrides: tuple[str, ...], *, overwrite: bool, dry_run: bool) -> None:
    """Do the stages that CONFIG names: curate, pretrain, evaluate, embed, questions, index, serve.

    CONFIG is a YAML file with the pipeline's folder and a section for each stage, whose keys are the options of the
    stage's command, such as shard_rows for --shard-rows. The section pretrain has the settings of a training, and
    under "config" a YAML file or a ready configuration that they are laid over; questions are the texts of the pairs,
    embedded for the index; serve has the server that answers from the new index. A stage without a section is
    left out. Each stage reads what the ones before it have made, unless its section says something else.

    \b
        folder: /data/release-1
        curate: {inputs: [uniprot_sprot.dat.gz]}
        pretrain: {config: tiny_cpu, epochs: 24}
        evaluate: {tasks: [retrieval]}
        embed:
        questions:
        index: {recall: 0.99}

    KEY=VALUE overrides a setting, such as folder=/data/release-2 or pretrain.workers.num=8.

    After an interruption, give the same command again: finished stages are skipped, and the one that was at work goes
    on where it was. Where settings or inputs of a finished stage have changed, the command says which, and does nothing
    without --overwrite. `protclip status FOLDER` shows how far it is. docs/pipeline.md has a whole example.

    As a job on a running cluster, with absolute paths or URLs:

    \b
        ray job submit --working-dir . -- python -m protclip pipeline pipeline.yaml
    """
    end_with_ray()
    settings = with_paths(load_pipeline(config, overrides, find_config, resolve_output))
    if dry_run:
        for stage, what in plan(settings, overwrite=overwrite).items():
            echo(f"{stage}: {what}")
        return
    run_pipeline(settings, overwrite=overwrite)
