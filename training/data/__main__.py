"""Command line of the data tools: `python -m training.data --help`."""

from __future__ import annotations

import argparse

from training.data.synthetic import command as synthesize
from training.errors import run_command


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data", description="Make, convert and check data sets."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    synthesize.add_arguments(commands.add_parser("synthesize", help="make pages with a generator"))
    arguments = parser.parse_args()
    return synthesize.run(arguments)


if __name__ == "__main__":
    run_command(main)
