"""Where the time of a server goes under full load: a flame graph, by py-spy.

    make profile      python -m bench.profile [--system NAME] [--seconds S] [--out FILE]

NAME is one of `python -m bench --list`; without it, fasthook that syncs and handles. Compiled
functions are named as mypyc does (`CPyDef_…`). It takes root, or ptrace of one's own processes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from bench.catalogue import CATALOGUE
from bench.pairs import ready
from bench.servers import LOAD_CORE, ROOT, program, scratch


def main() -> int:
    """Load, record, and say where it is written."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("bench.profile", description=__doc__, formatter_class=raw)
    parser.add_argument("--system", default="fasthook fsync", choices=CATALOGUE, metavar="NAME")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / ".run" / "profile.svg", metavar="FILE")
    options = parser.parse_args()
    py_spy = Path(sys.executable).with_name("py-spy")
    if not py_spy.exists() or not program("wrk"):
        print("py-spy or wrk is not installed: make bench, or apt-get install wrk", file=sys.stderr)
        return 2
    options.out.parent.mkdir(exist_ok=True)
    with (
        scratch() as folder,
        ready(CATALOGUE[options.system], folder) as bench,
    ):
        recording = subprocess.Popen(
            [
                *("taskset", "-c", str(LOAD_CORE), str(py_spy), "record", "--native", "--threads"),
                *("--subprocesses", "--rate", "200", "--duration", str(options.seconds)),
                *("--output", str(options.out), "--pid", str(bench.server.processes[0].pid)),
            ],
        )
        bench.sample(options.seconds)
        return recording.wait()


if __name__ == "__main__":
    sys.exit(main())
