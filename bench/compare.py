"""fasthook beside the prototype, A B A B, on one core; the load on the other.

    python -m bench.compare [--seconds S] [--rounds N]

Prints requests a second, and the ratio to the prototype of the same round: machines are noisy, so
rounds are compared pair by pair. Needs `wrk`, and two cores for `taskset`.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from bench.servers import (
    System,
    ended,
    fasthook,
    handled,
    make_handler,
    measure,
    start,
    wait_until_open,
)
from bench.workload import push_body, wrk_script

PORT = 18090


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_handler(folder)
        script = folder / "push.lua"
        wrk_script(script, "/github", push_body())
        prototype = start(
            ["-m", "bench.prototype", f"tcp://127.0.0.1:{PORT}"], folder, folder / "prototype.log"
        )
        systems = {
            "prototype": System(PORT, prototype),
            "fasthook quiet": fasthook(folder, "quiet", PORT + 1),
            "fasthook logged": fasthook(folder, "logged", PORT + 3, log={"level": "info"}),
        }
        with ended(systems):
            compare(systems, script, options.seconds, options.rounds)


def compare(systems: dict[str, System], script: Path, seconds: int, rounds: int) -> None:
    """Rounds of all systems in turn, and the ratios of each round."""
    ratios: dict[str, list[float]] = {name: [] for name in systems}
    for system in systems.values():
        wait_until_open(system.port)
        measure(system.port, script, 1)
    for number in range(rounds):
        base = 0.0
        for name, system in systems.items():
            rate, p99 = measure(system.port, script, seconds)
            base = base or rate
            ratios[name].append(rate / base)
            print(f"round {number + 1}  {name:18} {rate:9,.0f}/s  p99 {p99:>8}", flush=True)
    for name, values in ratios.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:18} × {middle:.2f} of the prototype ({low:.2f} to {high:.2f})")
    for name, system in systems.items():
        if name != "prototype":
            print(f"{name:18} handled {handled(system):,} events")


if __name__ == "__main__":
    main()
