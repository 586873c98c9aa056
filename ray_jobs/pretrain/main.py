"""``protclip pretrain``: dual-encoder pretraining on a folder of pairs, by Ray Train."""

from __future__ import annotations

import click

from protclip.config_file import load_config
from ray_jobs.cluster import end_with_ray
from ray_jobs.pretrain.run import find_config, pretrain


@click.command()
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--fresh", is_flag=True, help="Remove what an earlier run left in run_dir, and start from the beginning.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check settings, paths and every byte of the pairs, and print what a run would take.",
)
def main(config: str, overrides: tuple[str, ...], *, fresh: bool, dry_run: bool) -> None:
    """Train a model with the settings in CONFIG.

    CONFIG is a YAML file, or the name of a ready configuration such as tiny_cpu. KEY=VALUE overrides a setting, such as
    workers.num=8 or data.pairs=/data/pairs. All settings with their defaults are printed at the start; each is
    explained in protclip/config.py.

    The run's folder (run_dir) receives config.yaml, metrics.json, steps.jsonl, report.html, tensorboard/, checkpoints/
    and, at the end, best/: the checkpoint of the best epoch by selection.metric, which embed, search and serve take.

    After an interruption, give the same command again: the run goes on after its last checkpoint, with the same
    batches as an undisturbed run. The number of workers may be another one.

    As a job on a running cluster, from the repository's root:

    \b
        ray job submit --working-dir . -- python -m protclip pretrain tiny_cpu data.pairs=/data/pairs run_dir=/data/run
    """
    end_with_ray()
    settings = load_config(find_config(config), overrides)
    pretrain(settings, fresh=fresh, dry_run=dry_run)
