"""A replica's application as a process of its own, without Ray Serve: it is started in seconds, to be killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import uvicorn
from ports import free_port

from serve.deployments import Replica
from serve.settings import AppArgs, check_args

TESTS = Path(__file__).parent


class ReplicaProcess:
    """It lives until it is killed, or to the end of the block, and can be started again on the same port."""

    def __init__(self, args: AppArgs, index: str) -> None:
        self.args = args
        self.index = index
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def __enter__(self) -> ReplicaProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, without waiting."""
        command = [sys.executable, "-P", __file__, self.args.model_dump_json(), self.index, str(self.port)]
        # tests/serve is not to be found where serve is looked for.
        environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)

    def wait_ready(self) -> ReplicaProcess:
        """Wait until it answers."""
        while True:
            assert self.process.poll() is None, "it has ended"
            try:
                httpx2.get(f"{self.url}/health", timeout=60).raise_for_status()
            except httpx2.TransportError:
                time.sleep(0.1)
            else:
                return self

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    args = AppArgs.model_validate_json(sys.argv[1])
    replica = Replica(args, check_args(args))
    asyncio.run(replica.reconfigure({"indexes": {"default": sys.argv[2]}}))
    uvicorn.run(replica.__serve_build_asgi_app__(), port=int(sys.argv[3]), log_level="warning", lifespan="off")
