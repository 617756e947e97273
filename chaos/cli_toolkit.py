"""`gossamer chaos export` and `import`: Chaos Toolkit's JSON.

Invariant: what an import leaves out is said.
"""

import json
from pathlib import Path

import click

from chaos.cli_files import file_path, load, resolved, write
from chaos.cli_telling import plain
from peer.commands.options import Failure


@click.command("export")
@click.argument("file")
@click.option("-o", "--save", type=file_path, help="Write to this file; default: to standard output.")
@click.option("--seed", type=click.IntRange(0), help="Instead of the experiment's own.")
@click.option("--peer", "peers", multiple=True, metavar="NODE=DATA-DIR",
              help="The data directory of a node's peer; once for each node.")  # fmt: skip
def export_toolkit(file: str, save: Path | None, seed: int | None, peers: tuple[str, ...]) -> None:
    """Write an experiment as Chaos Toolkit's JSON (`chaos run` of chaostoolkit.org runs it on peers that run here)."""
    from chaos.toolkit import export

    experiment = resolved(load(file), seed, file)
    directories = {}
    for each in peers:
        node, equals, directory = each.partition("=")
        if not equals or not directory or node not in experiment.topology.names:
            raise Failure(
                f"--peer {each!r}: a node of the experiment is expected, as n0=/var/lib/gossamer", code=2
            )
        directories[node] = str(Path(directory).absolute())
    text = json.dumps(export(experiment, directories), indent=2) + "\n"
    if save is None:
        click.echo(text, nl=False)
    else:
        write(save, text)


@click.command("import")
@click.argument("file", type=file_path)
@click.option("-o", "--save", type=file_path, help="Write to this file; default: to standard output.")
def import_toolkit(file: Path, save: Path | None) -> None:
    """Read an experiment from Chaos Toolkit's JSON. What it leaves out is said on standard error."""
    from chaos.experiment import ExperimentError, dump
    from chaos.toolkit import read_toolkit
    from peer.yamlfile import YamlFileError, read_text

    try:
        experiment, left_out = read_toolkit(read_text(file), str(file))
    except YamlFileError as error:
        raise Failure(str(error), code=2) from error
    except ExperimentError as error:
        raise Failure(*error.lines, code=2) from error
    for words in left_out:
        click.echo(f"{file}: left out: {plain(words)}", err=True)
    if save is None:
        click.echo(dump(experiment), nl=False)
    else:
        write(save, dump(experiment))
