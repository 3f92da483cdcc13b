"""Many machines: what they gain, what they cost, and what their faults lose.

    python -m benchmarks.cluster PART [options]

PART is one of

- simulated: recorded curves at 1 to 512 simulated workers of unequal speed: utilisation and time to a regret
- real: a small search on two nodes of a local Ray cluster, beside the local executor and Ray Tune
- faults: nodes, workers and the coordinator are killed or stopped while they work
- network: two nodes in network namespaces whose link is cut and healed

``python -m benchmarks.cluster PART --help`` lists the options of a part.
"""

from __future__ import annotations

import importlib
import sys

PARTS = ("simulated", "real", "faults", "network")


def main() -> None:
    """Run the named part."""
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        print(__doc__)
        sys.exit(sys.argv[1:] not in ([], ["-h"], ["--help"]))
    importlib.import_module(f"benchmarks.cluster_{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
