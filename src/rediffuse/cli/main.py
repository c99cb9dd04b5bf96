"""`rediffuse`: the verbs, and what happens when one goes wrong."""

import os
import sys
from typing import Annotated, NoReturn

import typer

import rediffuse
from rediffuse.cli import collect, compare, data, doctor, evaluate, export, keys, quickstart, recommend, serve, train
from rediffuse.cli.console import console, stderr
from rediffuse.errors import RediffuseError, say

app = typer.Typer(
    help="Recommendations by diffusion models: trained, fairly compared with the classics, explained.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("quickstart")(quickstart.quickstart)
app.command("import")(data.import_)
app.command("describe")(data.describe)
app.command("split")(data.split)
app.command("train")(train.train)
app.command("collect")(collect.collect)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("recommend")(recommend.recommend)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("keys")(keys.keys)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(rediffuse.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def run() -> None:
    """Entry point: what a user can mend becomes one sentence on standard error and exit code 2.

    `serve` ends with 75 where a later start may go well: its store is away or locked, its port is taken.
    """
    try:
        app()
    except RediffuseError as error:
        _fail(error, str(error))
    except OSError as error:
        _fail(error, say(error.strerror or str(error), got=error.filename))


def _fail(error: Exception, text: str) -> NoReturn:
    stderr.print(f"Error: {text}", style="red", soft_wrap=True)
    passes = isinstance(error, OSError) and not isinstance(error, PermissionError)
    sys.exit(os.EX_TEMPFAIL if passes and sys.argv[1:2] == ["serve"] else 2)


if __name__ == "__main__":
    run()
