"""Run a module as a process that ends together with the process that started it.

``python -m medscale.engine.parallel.orphan MODULE …`` runs ``python -m MODULE …``. Nothing heavy is
imported before the module: ranks import for seconds, and a killed launcher must not leave them.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

LAUNCHER = "MEDSCALE_LAUNCHER"  # environment variable: process id of the launcher
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Let the kernel (Linux) kill this process as soon as its parent ends, so no rank survives."""
    parent = int(os.environ.get(LAUNCHER) or os.getppid())
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call
        os._exit(1)


if __name__ == "__main__":
    die_with_parent()
    # Until the module listens to signals, Ctrl-C ends the imports without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
