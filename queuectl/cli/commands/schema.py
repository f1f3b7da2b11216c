"""`queuectl schema`: print the JSON Schema of a job file."""

from __future__ import annotations

import click

from queuectl.cli import render
from queuectl.cli.base import command


@command(
    "schema",
    examples="""
    queuectl schema > job.schema.json
    queuectl schema | jq '.properties | keys'
    queuectl schema --record                   what `show --json` and `list --json` print
    """,
)
@click.option("--record", is_flag=True, help="The schema of what `show --json` and `list --json` print.")
def schema_command(record: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of a job file.

    An editor that uses it completes field names, shows their meaning and marks errors. In VS Code use the setting
    json.schemas, with a fileMatch such as ["**/pending/*.json"]; in JetBrains editors use JSON Schema Mappings.
    `queuectl check` also finds errors that a schema cannot describe.
    """
    from queuectl.config.keys import KEYS
    from queuectl.job.schema import job_schema, record_schema

    if record:
        render.json_value(record_schema())
        return
    render.json_value(job_schema({key.name: key.default for key in KEYS.values() if key.default is not None}))
