"""Python programs in processes that have imported the packages of others already.

The imports of PyTorch or Snakemake take longer than most of the programs that tests start. One
process, which ``python -m warm_python MODULE …`` starts, imports such modules once and is then
forked for each program. A program has its own working directory, environment, search path and
outputs; it imports all modules of this project itself, as one that is started by a command does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

TESTS = Path(__file__).parent
PACKAGE = "medscale"  # is imported by each program
TRAINING = (
    *("torch", "torch.distributed.checkpoint", "torch.distributed.pipelining", "pandas", "typer"),
    *("pyarrow.dataset", "cv2", "safetensors.torch", "pydantic", "psutil", "statistics"),
)
PLANNING = (
    *("pandas", "sqlmodel", "smart_open", "yaml", "jinja2", "nbformat", "pydantic", "typer"),
    *("psutil", "humanfriendly", "snakemake_executor_plugin_slurm", "scipy.stats", "rich.console"),
)


class Process:
    """A process that was not started by this module's caller, with the methods of ``Popen``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def status(self) -> int | None:
        """Return the exit status, None while the process runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def poll(self) -> int | None:
        """Return the exit status, None while the process runs."""
        if self.returncode is None:
            self.returncode = self.status()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raise ``TimeoutExpired`` after ``timeout`` seconds."""
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(0.02)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process, unless it has ended."""
        self.send_signal(signal.SIGKILL)


class Program(Process):
    """A program whose parent is the process that has imported the modules."""

    def __init__(self, server: subprocess.Popen[str], request: Mapping[str, Any]) -> None:
        self.server = server
        super().__init__(int(_answer(server, request)))

    def status(self) -> int | None:
        """Return the exit status, None while the process runs."""
        return _answer(self.server, {"poll": self.pid})


class Rank(Process):
    """``python -m MODULE`` as a process that is forked from its launcher."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], start_new_session: bool
    ) -> None:
        assert start_new_session
        sys.stdout.flush()
        sys.stderr.flush()
        super().__init__(os.fork())
        if not self.pid:
            _run_rank(command[1:], env)


def start(
    command: Sequence[str | Path],
    modules: Sequence[str],
    *,
    cwd: Path,
    output: Path | None = None,
    errors: Path | None = None,
    environment: Mapping[str, str] | None = None,
    ranks: bool = False,
) -> Program:
    """Start ``python COMMAND``.

    Args:
        command: a script, or ``-m`` and a module, or ``-c`` and a text; and its arguments.
        modules: imported beforehand (``TRAINING`` or ``PLANNING``).
        cwd: the working directory.
        output: a file for the standard output, which is otherwise lost.
        errors: a file for the standard error, likewise.
        environment: the environment, in place of this process's.
        ranks: fork also the ranks that a launcher of a training starts.
    """
    request = {
        "command": [str(part) for part in command],
        "cwd": str(cwd),
        "outputs": [str(file or os.devnull) for file in (output, errors)],
        "environment": dict(os.environ if environment is None else environment),
        "ranks": ranks,
    }
    return Program(_server(tuple(modules)), request)


def run(
    command: Sequence[str | Path],
    modules: Sequence[str],
    *,
    seconds: float = 120,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Carry out ``python COMMAND`` and return its outputs.

    ``seconds``: after which it is killed and ``TimeoutExpired`` is raised; for further ``options``
    see ``start``.
    """
    with TemporaryDirectory() as folder:
        output, errors = (Path(folder, name) for name in ("output", "errors"))
        process = start(command, modules, output=output, errors=errors, **options)
        try:
            status = process.wait(seconds)
        finally:
            process.kill()
        texts = [file.read_text(encoding="utf-8") for file in (output, errors)]
    return subprocess.CompletedProcess(list(map(str, command)), status, *texts)


@cache
def _server(modules: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start the process that imports modules; it ends with this one."""
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "warm_python", *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | one_thread | {"PYTHONPATH": str(TESTS)},
    )
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.wait()


def _answer(server: subprocess.Popen[str], request: Mapping[str, Any]) -> Any:
    assert server.stdout is not None
    print(json.dumps(request), file=server.stdin, flush=True)
    return json.loads(server.stdout.readline())


def main(modules: Sequence[str]) -> None:
    """Import modules, and start a program for each request on standard input."""
    for module in modules:
        importlib.import_module(module)
    assert PACKAGE not in sys.modules
    gc.collect()
    gc.freeze()  # otherwise each program would copy the memory of what was imported
    ended = End()
    path = [folder for folder in sys.path[1:] if Path(folder) != TESTS]
    for line in sys.stdin:
        request = json.loads(line)
        if pid := request.get("poll"):
            print(json.dumps(Process(pid).poll()), flush=True)
        elif pid := os.fork():
            print(pid, flush=True)
        else:
            with ended:
                _become(request, path)
            return


class End:
    """The end of a program, which clears no memory of what was imported, as that takes a second.

    It is the first of the functions that are called at the end of Python, which is the last one.
    """

    def __init__(self) -> None:
        self._status = 0
        self._program = os.getpid()
        atexit.register(self._leave)

    def __enter__(self) -> None:
        self._program = os.getpid()

    def __exit__(self, _type: Any, error: BaseException | None, _traceback: Any) -> None:
        self._status = _status_of(error)

    def _leave(self) -> None:
        if os.getpid() == self._program:  # and not a process that the program has forked
            _flush()
            os._exit(self._status)


def _status_of(error: BaseException | None) -> int:
    """The exit status of a process that ends by an error."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return int(error is not None)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


def _become(request: Mapping[str, Any], path: Sequence[str]) -> None:
    """Run a program in this process, which ends with it as any Python does."""
    for number, file in enumerate((os.devnull, *request["outputs"])):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
        os.dup2(os.open(file, flags), number)
    sys.stdin = os.fdopen(0, closefd=False)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ |= request["environment"]
    own = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = ["", *own, *path]
    importlib.invalidate_caches()
    if request["ranks"]:
        launch = importlib.import_module(f"{PACKAGE}.engine.parallel.launch")
        launch.subprocess = SimpleNamespace(  # type: ignore[attr-defined]
            Popen=Rank, TimeoutExpired=subprocess.TimeoutExpired
        )
    _carry_out(request["command"])


def _carry_out(command: Sequence[str]) -> None:
    """Run a script, ``-m MODULE`` or ``-c TEXT`` as the main module."""
    if command[0] == "-m":
        sys.argv = list(command[1:])
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    elif command[0] == "-c":
        sys.argv = ["-c", *command[2:]]
        exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = list(command)
        sys.path[0] = str(Path(command[0]).resolve().parent)
        runpy.run_path(command[0], run_name="__main__")


def _run_rank(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run a program in this process, a fork of its launcher, and end it."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ |= environment
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    failure: BaseException | None = None
    try:
        _carry_out(command)
    except BaseException as error:
        failure = error
        if not isinstance(error, SystemExit):
            traceback.print_exc()
    finally:
        _flush()
        os._exit(_status_of(failure))


if __name__ == "__main__":
    main(sys.argv[1:])
