"""Clients that search until their input ends, each in a thread; run on a host: ``search_clients.py COUNT URL…``.

Prints JSON: how many searches were answered, which failed, and when the longest began, in seconds since the start, with
its seconds.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time

from protclip.client import Client
from protclip.errors import ProtclipError

TIMEOUT_S = 10.0
"""A host that is cut from the network says nothing; the default lets a slow server compute for longer."""


def main() -> None:
    """Search."""
    logging.getLogger("protclip.client").setLevel(logging.ERROR)
    count, addresses = int(sys.argv[1]), sys.argv[2:]
    stop = threading.Event()
    num_answered, longest, lock = 0, (0.0, 0.0), threading.Lock()  # not all of them: clients may ask for an hour
    failed: list[str] = []
    wrong: list[str] = []
    begun = time.monotonic()

    def ask() -> None:
        nonlocal num_answered, longest
        with Client(*addresses, timeout_s=TIMEOUT_S) as client:
            expected = client.search(text="binds ATP", k=3).hits
            while not stop.is_set():
                start = time.monotonic()
                try:
                    found = client.search(text="binds ATP", k=3).hits
                except ProtclipError as error:
                    failed.append(str(error))
                    continue
                seconds = time.monotonic() - start
                with lock:
                    num_answered += 1
                    longest = max(longest, (start - begun, seconds), key=lambda one: one[1])
                if found != expected:
                    wrong.append(str(found))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for line in sys.stdin:  # asks how many were answered until now
        assert line
        print(num_answered, flush=True)
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"answered": num_answered, "failed": failed, "wrong": wrong, "longest": longest}))


if __name__ == "__main__":
    main()
