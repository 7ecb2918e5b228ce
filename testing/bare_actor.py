# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Calls of a Ray actor that does nothing, in a process that sets nothing of Ray's; the yardstick of bench/fleet.py.

The argument is the cluster's address. Standard input takes lines ``BYTES CALLS``, standard output gets the seconds of
each call as JSON.
"""

from __future__ import annotations

import array
import json
import sys
import time

import numpy as np
import ray


class Bare:
    """Takes bytes, and answers with as many as 1000 classes have."""

    def call(self, data: np.ndarray) -> bytes:
        """Return an answer."""
        return bytes(4000)


def main() -> None:
    """Follow the lines until the end."""
    ray.init(address=sys.argv[1], configure_logging=False, log_to_driver=False)
    bare = ray.remote(num_cpus=0)(Bare).remote()
    for line in sys.stdin:
        count, calls = map(int, line.split())
        data, seconds = array.array('B', bytes(count)), []
        for _ in range(calls):
            begin_s = time.perf_counter()
            ray.get(bare.call.remote(np.frombuffer(data, np.uint8)))
            seconds.append(time.perf_counter() - begin_s)
        print(json.dumps(seconds), flush=True)


if __name__ == '__main__':
    main()
