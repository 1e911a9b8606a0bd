"""Train without the launcher: the ranks are forked from one process that has imported everything.

The imports of a rank take seconds, the trainings of tests do not. Each line on standard input is
a request (JSON); the answer is a line with the exit status of each rank.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from medscale.engine.parallel.failures import FOLDER
from medscale.engine.parallel.rendezvous import STORE


def main() -> None:
    # The modules that a rank imports late are imported here, once for all ranks.
    import medscale.engine.parallel.ddp
    import medscale.engine.parallel.fsdp
    import medscale.engine.parallel.pipeline
    import medscale.engine.train.worker  # noqa: F401

    gc.freeze()  # otherwise each rank would copy the memory of what was imported
    for line in sys.stdin:
        request = json.loads(line)
        ranks = [_start(rank, request) for rank in range(request["ranks"])]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks]
        print(json.dumps(statuses), flush=True)


def _start(rank: int, request: dict[str, Any]) -> int:
    """Fork a rank; return its process id."""
    if process := os.fork():
        return process
    output = os.open(Path(request["reports"], f"output{rank}.txt"), os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    place = {"RANK": rank, "LOCAL_RANK": rank, STORE: request["reports"] + ".store"}
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), request["ranks"])
    os.environ |= {name: str(value) for name, value in (place | sizes).items()}
    os.environ[FOLDER] = request["reports"]
    status = 1
    try:
        module, task = request["task"].split(":")
        make_task = getattr(importlib.import_module(module), task)
        paths = map(Path, request["paths"])
        importlib.import_module("medscale.engine.train.worker").run_rank(*paths, make_task)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
