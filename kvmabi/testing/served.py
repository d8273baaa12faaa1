# SPDX-License-Identifier: MIT
"""The process that runs a VMM under the interposer for a test: python -m kvmabi.testing.served ORDER ANSWER.

It is a process of its own because serving a program changes the process that does it: signal handlers, the adoption of
orphans, the limit of open files. ``kvmabi.testing.running`` writes the order and reads the answer, both JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kvmabi import wholefile
from kvmabi.device import ioctl_names, open_system
from kvmabi.errors import UsageError
from kvmabi.events import EventLog
from kvmabi.faults import Faults
from kvmabi.guests import scripts
from kvmabi.interpose import launch
from kvmabi.order import OrderChecker
from kvmabi.order.kept import KeptSaves, run_name
from kvmabi.profiles import load_kernel
from kvmabi.profiles.host import from_json
from kvmabi.testing.records import Data, event_data


def serve(order: Data) -> Data:
    """Run the program of an order; returns how it ended, its events and the verdict, or the error of one line."""
    host = from_json(order["host"]["name"], order["host"])
    kernel = load_kernel(order["kernel"])
    log = EventLog()
    checker = OrderChecker(order["ignored"], counter_hz=host.counter_hz, kernel=kernel)
    log.watchers.append(checker.watch)
    try:
        script = None if order["guest"] is None else scripts.load(order["guest"])
        faults = Faults.parse(order["faults"], ioctl_names(), order["fault_seed"])
        system = open_system(host, kernel, log, script, faults)
        status = launch.run(order["argv"], system, environment=order["environment"])
    except UsageError as error:
        return {"error": str(error)}
    others = None if order["saves"] is None else KeptSaves(Path(order["saves"]))
    verdict = checker.verdict(other_saves=tuple if others is None else others.load)
    if others is not None:
        others.keep(checker.sources(), run_name(order["argv"][0]))
    return {
        "status": status.program,
        "failures": status.failures,
        "guest_failures": [] if script is None else script.failures,
        "events": [event_data(event) for event in log.events],
        "verdict": verdict.as_dict(),
    }


def main() -> None:
    """Reads the order, writes the answer."""
    order, answer = map(Path, sys.argv[1:])
    wholefile.replace(answer, json.dumps(serve(json.loads(order.read_text("utf-8")))))


if __name__ == "__main__":
    main()
