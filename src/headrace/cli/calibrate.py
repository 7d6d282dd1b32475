"""`headrace calibrate`: measures an engine and writes its latency profile."""

from __future__ import annotations

import argparse
from pathlib import Path

from headrace.cli import flags
from headrace.cli.flags import FAILED, Commands, refuse


def add_calibrate(commands: Commands) -> None:
    """Adds the command and its flags."""
    calibrate = commands.add_parser(
        "calibrate",
        help="measure an engine and write its latency profile",
        description="Does short designed experiments on one idle replica of any OpenAI-compatible "
        "engine, fits the latency model with its intervals, and writes a profile for up, serve, "
        "simulate and engine. Refuses what the data do not support, and says which term.",
    )
    add = calibrate.add_argument
    add("url", type=flags.url, metavar="URL", help="the replica, not a gateway before several")
    add("--model", metavar="NAME", help="which model, if it serves several")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE.yaml",
        help="where the profile goes (profile.yaml)",
    )
    add(
        "--check",
        metavar="PROFILE",
        help="compare this profile, a file or the name of a shipped one, with the engine of today "
        "instead: exit code 0 if it holds, else 1",
    )
    add(
        "--tolerance",
        type=flags.above_zero,
        metavar="X",
        help="with --check: share by which the median of a phase may be off (0.15)",
    )
    _add_limits(calibrate)
    add("--json", action="store_true", help="everything as JSON instead of a table")
    calibrate.set_defaults(run=_calibrate)


def _add_limits(calibrate: flags.Parser) -> None:
    add = calibrate.add_argument
    add(
        "--budget",
        type=flags.above_zero,
        metavar="S",
        help="seconds that it may take, about (90; 20 with --check); ended at "
        "twice as many, or at as many if it is not warm by then",
    )
    add(
        "--max-batch",
        type=flags.count,
        metavar="N",
        help="most streams side by side (as many as the engine runs, up to 64)",
    )
    add(
        "--max-prompt",
        type=flags.count,
        metavar="TOKENS",
        help="longest prompt (by context limit and budget)",
    )
    add("--api-key-env", metavar="NAME", help="environment variable with the engine's key")
    add("--machine", metavar="TEXT", help="what it runs on, if not on this machine")
    add("--name", metavar="NAME", help="of the profile (after the file, or model and date)")
    add("--seed", type=flags.seed, default=0, metavar="N", help="of texts and order (0)")


def _calibrate(options: argparse.Namespace) -> int:
    from headrace.calibration.replica import CalibrationError
    from headrace.compose.calibrate.command import CalibrateOptions, CalibrateUsage, calibrate
    from headrace.compose.process.terminal import Terminal

    if options.check is not None and options.output is not None:
        return refuse("--output is of a profile that is written, and --check writes none")
    given = {name: value for name, value in vars(options).items() if name != "run"}
    if options.output is None:
        del given["output"]
    try:
        return calibrate(CalibrateOptions(**given), Terminal())
    except CalibrateUsage as error:
        return refuse(str(error))
    except CalibrationError as error:
        return refuse(str(error), code=FAILED)
