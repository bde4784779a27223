"""Training speed beside other frameworks: ``fullback bench``, with the same options."""

import typer

from fullback.cli.bench import bench

if __name__ == "__main__":
    typer.run(bench)
