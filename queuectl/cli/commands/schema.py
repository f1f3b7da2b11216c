"""`queuectl schema`: print the JSON Schema of a job file, or of a rule file."""

from __future__ import annotations

import click

from queuectl.cli import render
from queuectl.cli.base import Usage, command


@command(
    "schema",
    examples="""
    queuectl schema > job.schema.json
    queuectl schema | jq '.properties | keys'
    queuectl schema --rule > rule.schema.json
    queuectl schema --record                   what `show --json` and `list --json` print
    """,
)
@click.option("--record", is_flag=True, help="The schema of what `show --json` and `list --json` print.")
@click.option("--rule", is_flag=True, help="The schema of a rule file.")
def schema_command(record: bool, rule: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of a job file, or of a rule file.

    An editor that uses it completes field names, shows their meaning and marks errors. In VS Code use the setting
    json.schemas, with a fileMatch such as ["**/pending/*.json"]; in JetBrains editors use JSON Schema Mappings.
    `queuectl check` also finds errors that a schema cannot describe.
    """
    from queuectl.config.keys import KEYS
    from queuectl.job.schema import job_schema, record_schema

    if record and rule:
        raise Usage("--record and --rule are two schemas", hint="queuectl schema --rule")
    if record:
        render.json_value(record_schema())
        return
    defaults = {key.name: key.default for key in KEYS.values() if key.default is not None}
    if rule:
        from queuectl.rules.rule_schema import rule_schema

        render.json_value(rule_schema(defaults))
        return
    render.json_value(job_schema(defaults))
