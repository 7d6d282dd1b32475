"""`headrace keys`: API keys for clients."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from headrace.cli.flags import Commands, print_json, refuse


def add_keys(commands: Commands) -> None:
    """Adds the command and its flags."""
    keys = commands.add_parser(
        "keys", help="API keys for clients", description="API keys for clients of the gateway."
    )
    actions = keys.add_subparsers(title="actions", metavar="ACTION", required=True)
    new = actions.add_parser(
        "new",
        help="make a key",
        description="Makes a key, shows it once, and stores only its hash in the file.",
    )
    add = new.add_argument
    add("name", metavar="NAME", help="whose key it is")
    add("--file", type=Path, required=True, metavar="FILE", help="the api_keys_file to append to")
    add("--json", action="store_true", help="show it as JSON")
    new.set_defaults(run=_new_key)


def _new_key(options: argparse.Namespace) -> int:
    from headrace.gateway.keys import KeyFileError, add_key, count_keys

    try:
        key = add_key(options.file, options.name)
        held = count_keys(options.file, options.name)
    except (ValueError, KeyFileError) as error:
        return refuse(str(error))
    except OSError as error:
        return refuse(f"{options.file}: cannot store the key: {error.strerror}")
    if options.json:
        print_json({"name": options.name, "key": key})
    else:
        sys.stdout.write(f"{key}\n")
        sys.stderr.write(
            "This key is shown once; the file holds only its hash. A gateway that runs takes it "
            "after\nSIGHUP (kill -HUP PID) or a restart.\n"
        )
    if held > 1:
        sys.stderr.write(
            f"headrace: warning: {options.name} has {held} keys in {options.file} now, and each "
            "works;\nremove the line of one that is no longer wanted, then reload.\n"
        )
    return 0
