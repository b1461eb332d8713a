"""The report of an experiment again, from what the store has; nothing is run.

    python -m experiments.report experiment=quickstart [figures=paper]
    python -m experiments.report report.compare=[quickstart,results/alpaca_smoke]

Takes what `python -m experiments.run` takes.
"""

import sys

from experiments import run

if __name__ == "__main__":
    sys.argv.append("plan=report")
    sys.exit(run.cli())
