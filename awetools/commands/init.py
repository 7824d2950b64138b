"""`awe-init`: make a directory into a store."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .messages import Messenger
from .runner import launch


@click.command("init", short_help="Make a directory into a store.", context_settings=options.SETTINGS)
@click.argument("directory", default=".", type=click.Path(path_type=Path, readable=False))
@options.common
@click.pass_obj
def command(messenger: Messenger, /, directory: Path) -> None:
    """Make DIRECTORY (by default this one) into a store: a directory of products, with `.awe/` in it.

    What is in the directory stays as it is; a store that exists is left alone.
    Settings go into `.awe/awe.toml`, camera tables into `.awe/cameras/`.

    \b
    Example: awe-init /data/night && cd /data/night && awe-ingest raw/
    """
    from ..core.indexing.index import open_index
    from ..core.store import AWE, init_store

    existed = (directory / AWE).is_dir()
    store = init_store(directory)
    open_index(store).close()
    messenger.note(f"{store.root}: {'is a store already' if existed else 'is now a store'}")
    options.print_line(str(store.root))


def main() -> None:
    """Run the program."""
    launch(command)
