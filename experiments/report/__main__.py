"""The report of an experiment again, from what the store has; nothing is run.

    python -m experiments.report experiment=quickstart

Takes what `python -m experiments.run` takes.
"""

import sys

from experiments import run

if __name__ == "__main__":
    sys.argv.append("plan=report")
    sys.exit(run.cli())
