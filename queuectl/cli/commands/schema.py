"""`queuectl schema`: print the JSON Schema of a job file."""

from __future__ import annotations

from queuectl.cli import render
from queuectl.cli.base import command


@command(
    "schema",
    examples="""
    queuectl schema > job.schema.json
    queuectl schema | jq '.properties | keys'
    """,
)
def schema_command() -> None:
    """Print the JSON Schema (draft 2020-12) of a job file.

    An editor that uses it completes field names, shows their meaning and marks errors. In VS Code use the setting
    json.schemas, with a fileMatch such as ["**/pending/*.json"]; in JetBrains editors use JSON Schema Mappings.
    `queuectl check` also finds errors that a schema cannot describe.
    """
    from queuectl.config.settings import KEYS
    from queuectl.job.schema import job_schema

    render.json_value(job_schema({key.name: key.default for key in KEYS.values() if key.default is not None}))
