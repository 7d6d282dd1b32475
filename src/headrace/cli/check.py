"""`headrace check`: a configuration with every default filled in, or all that is wrong with it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.flags import Commands, print_json, refuse

if TYPE_CHECKING:
    from headrace.config.document import ConfigError


def add_check(commands: Commands) -> None:
    """Adds the command and its flags."""
    check = commands.add_parser(
        "check",
        help="the configuration with every default filled in, or all that is wrong with it",
        description="Checks a configuration file and everything it points to.",
    )
    add = check.add_argument
    add("file", type=Path, nargs="?", metavar="FILE", help="the configuration")
    add("--json", action="store_true", help="JSON instead of YAML; seconds and bytes as numbers")
    add("--insecure", action="store_true", help="allow listening beyond loopback without keys")
    add("--schema", action="store_true", help="print the JSON Schema of the file instead")
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from headrace.config.document import ConfigError
    from headrace.config.json_schema import schema_text
    from headrace.config.load import load
    from headrace.config.render import as_json, as_yaml

    if options.schema:
        sys.stdout.write(schema_text())
        return 0
    if options.file is None:
        return refuse("check needs a FILE, or --schema")
    try:
        loaded = load(options.file, insecure=options.insecure)
    except ConfigError as error:
        if options.json:
            print_json(_problems(error))
        return refuse(str(error))
    for warning in loaded.warnings:
        sys.stderr.write(f"headrace: warning: {warning}\n")
    sys.stdout.write(as_json(loaded) if options.json else as_yaml(loaded))
    return 0


def _problems(error: ConfigError) -> dict[str, object]:
    problems = [
        {"line": each.line or None, "path": each.path, "message": each.message}
        for each in error.problems
    ]
    return {"file": error.source, "problems": problems}
