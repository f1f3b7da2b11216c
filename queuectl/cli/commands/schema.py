"""`queuectl schema`: the JSON Schema of a job file."""

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

    An editor that is told of it completes the fields, shows what they mean, and marks what is wrong. In VS Code that
    is the setting json.schemas, with a fileMatch like ["**/pending/*.json"]; in JetBrains' editors JSON Schema Mappings.
    What `queuectl check` refuses beyond it: see there.
    """
    from queuectl.config.settings import KEYS
    from queuectl.job.schema import job_schema

    render.json_value(job_schema({key.name: key.default for key in KEYS.values() if key.default is not None}))
