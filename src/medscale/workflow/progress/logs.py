"""Logs of jobs: their last sentence, the progress of a training, the logs of a target."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from pathlib import Path, PurePosixPath

from medscale.base.errors import FAULT
from medscale.base.provenance import SITE
from medscale.engine.run import RunSpec
from medscale.resources.jobs import OUT_OF_MEMORY, OUT_OF_TIME
from medscale.resources.slurm import is_of
from medscale.workflow.targets import DETECT_SHARDS, FOLDERS, SHARDS, TARGETS

TAIL_BYTES = 20_000
STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+ ")
ERROR = re.compile(r"^medscale: error: (.+)")
EPOCH = re.compile(r"epoch (\d+)/(\d+) .*\|  (\d+) images/s, (.+?) left")
# Folders of the workdir that have a folder for each study: with one for each run, or without.
WITH_RUNS = ("results", "runs", "profiled", "external", "logs")
WITHOUT_RUNS = tuple(name for name in FOLDERS if name not in (*WITH_RUNS, "paper"))
NO_MESSAGE = "its process ended without a message"
CLOCKS_S = 60.0  # between the clock of this machine and that of a file server
# Messages of Snakemake's executor for SLURM.
REFUSED = re.compile(r"sbatch failed. The error message was '(.*?)'\.(?:\n|$)", re.S)
UNSUBMITTED = re.compile(r"Job submission failed with exception: (.*)", re.S)
STATE = re.compile(r"SLURM status is: '(\w+)'")
# Remedies by the sentence with which SLURM refuses a job.
REMEDIES = (
    (
        re.compile(r"violates accounting/QOS policy"),
        "your limits in SLURM allow fewer jobs at a time (`--jobs 10`) or smaller runs only",
    ),
    (
        re.compile(r"[Ii]nvalid (account|qos|partition|feature)|reservation is invalid"),
        f"correct {SITE}",
    ),
    (
        re.compile(r"node configuration is not available"),
        f"correct `node` and `gpu_model` in {SITE}; or nodes are down (`sinfo -R`)",
    ),
    (
        re.compile(r"[Uu]nable to contact|timed out|sacctmgr|slurmdbd|[Cc]onnection refused"),
        "SLURM does not answer; when it does, the same command goes on",
    ),
)
NO_MEMORY, NO_TIME = "it ran out of memory", "it reached its time limit"
CANCELLED, NODE_FAILED = "it was cancelled", "its node failed"
# These reasons by SLURM's state, for jobs without a log, such as those that ended in the queue.
STATES = {
    "CANCELLED": CANCELLED,
    "NODE_FAIL": NODE_FAILED,
    "OUT_OF_MEMORY": NO_MEMORY,
    "TIMEOUT": NO_TIME,
}
# The request of Snakemake for the next attempt of a SLURM job after such an end.
NEXT_REQUESTS = {
    NO_MEMORY: "each further attempt requests twice as much, up to node.memory_mb",
    NO_TIME: "each further attempt requests twice as long, up to cluster.max_minutes",
}
# Patterns in a job's logs with the reason of its end in words; the first pattern that fits counts.
ENDS = (
    (OUT_OF_MEMORY, NO_MEMORY),
    (OUT_OF_TIME, NO_TIME),
    (re.compile(r"CANCELLED AT \S+ DUE TO NODE FAILURE"), NODE_FAILED),
    (re.compile(r"CANCELLED AT \S+ DUE TO PREEMPTION"), "it was preempted"),
    (re.compile(r"\*\*\* (JOB|STEP) \S+ ON \S+ CANCELLED AT"), CANCELLED),
    (re.compile(r"died with <Signals.SIGKILL"), "it was killed, mostly for lack of memory"),
)
# Errors of programs that start a job on a node: Apptainer, srun, the shell, the module system,
# Snakemake.
HOST = re.compile(
    r"^(FATAL|.*\b(srun|slurmstepd|Lmod|module)\b.*error|.*command not found|"
    r".*: No such file or directory|.*: not found)",
    re.I,
)
SNAKEMAKE = "WorkflowError:"  # the message is on the next line
FOLLOWING = ("Exited with exit code", "At least one job did not complete")  # say that it failed
# The wildcards of a job after its study, as Snakemake's executor joins them.
JOB = re.compile(r"(?:_(?P<name>.+?))?(?:_(?:seed)?\d+(?:_fold\d+)?)?")


def tail(file: Path) -> list[str]:
    """Return the last lines of a log with their time of day; none if there is no log."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def last_sentence(file: Path) -> str:
    """Return the reason why a job failed, by the last entry of its log.

    An error of an earlier attempt, which other entries follow, is not the reason.
    """
    lines = tail(file)
    if not lines:
        return f"{NO_MESSAGE}, and its log is empty"
    begin = next((n for n in range(len(lines) - 1, -1, -1) if STAMP.match(lines[n])), 0)
    entry = STAMP.sub("", lines[begin])
    if match := ERROR.match(entry) or ERROR.match(lines[-1]):
        return match[1]
    if entry.startswith(FAULT):
        return f"{FAULT}: {lines[-1]}"
    last = STAMP.sub("", lines[-1])
    return f"{NO_MESSAGE}; the last line of its log is: {last}"


def reason(logs: list[Path], message: str, started: float | None) -> tuple[str, Path | None]:
    """Return why an attempt of a job failed, and the log that tells more.

    Args:
        logs: logs of the job: of its stage, and SLURM's if it was a job there.
        message: message of Snakemake's executor; empty without one.
        started: Unix time at which the attempt began; older logs are of another one.
    """
    if match := REFUSED.search(message):
        sentence = _last_error(match[1].splitlines())
        return f"sbatch refused the job: {sentence}{_remedy(sentence)}", None
    if match := UNSUBMITTED.search(message):
        sentence = " ".join(match[1].split())
        return f"the job was not submitted: {sentence}{_remedy(sentence)}", None
    own_logs = [log for log in logs if _is_of_attempt(log, started)]
    # An error of the stage itself, wherever it is, tells more than how SLURM ended the job.
    stages = [log for log in own_logs if log == logs[0]]
    for log in stages:
        if (sentence := last_sentence(log)) and not sentence.startswith(NO_MESSAGE):
            return sentence, log
    texts = ["\n".join(tail(log)) for log in own_logs]
    for pattern, sentence in ENDS:
        if matches := [
            log for log, text in zip(own_logs, texts, strict=True) if pattern.search(text)
        ]:
            request = NEXT_REQUESTS.get(sentence) if STATE.search(message) else None
            return f"{sentence}; {request}" if request else sentence, matches[-1]
    if host := [log for log in own_logs if log not in stages and _of_host(log)]:
        return _of_host(host[-1]), host[-1]
    if state := STATE.search(message):
        sentence = STATES.get(state[1], f"SLURM ended it: {state[1]}")
        return sentence, own_logs[-1] if own_logs else None
    if not stages:
        return f"{NO_MESSAGE}, and without a log", None
    return last_sentence(stages[0]), stages[0]


def _is_of_attempt(log: Path, started: float | None) -> bool:
    """Whether a log has been written to since the attempt began, with a margin for clocks."""
    return log.is_file() and log.stat().st_mtime > (started or 0.0) - CLOCKS_S


def _of_host(log: Path) -> str:
    """Return the last error of a program that starts jobs, in a log of SLURM; empty without one."""
    lines = tail(log)
    for before, line in zip(reversed(["", *lines]), reversed([*lines, ""]), strict=True):
        if match := ERROR.match(line):
            return match[1]
        is_error = HOST.search(line) or before.strip() == SNAKEMAKE
        if is_error and not any(text in line for text in FOLLOWING):
            return line.strip()
    return ""


def _remedy(sentence: str) -> str:
    """Return the remedy for a refusal of SLURM, as the end of a sentence; empty if unknown."""
    return next((f"; {remedy}" for cause, remedy in REMEDIES if cause.search(sentence)), "")


def _last_error(lines: list[str]) -> str:
    """Return the last printed line of a program, without the program's name."""
    return lines[-1].removeprefix("sbatch: error: ") if lines else "without a message"


def excerpt(file: Path, count: int) -> list[str]:
    """Return the last lines of a log, after the line that tells its end if that is an earlier one.

    Snakemake's own messages follow that line in the logs of SLURM's jobs.
    """
    lines = tail(file)
    ends = [line for line in lines[:-count] if any(cause.search(line) for cause, _ in ENDS)]
    return ends[-1:] + lines[-count:]


def epoch(file: Path) -> str:
    """Return how far a training is by its log, such as "epoch 3 of 20, 530 images/s"; or empty."""
    for line in reversed(tail(file)):
        if match := EPOCH.search(line):
            return f"epoch {match[1]} of {match[2]}, {match[3]} images/s, {match[4]} left"
    return ""


def logs_of(
    workdir: Path, slurm_logs: Path, place: str, target: str, data_of: Callable[[str], str]
) -> Iterator[Path]:
    """Yield the logs that belong to a target, the newest last.

    To a run belong those of its study as well, and to a point of a sweep those of the study whose
    index and shards it uses. Empty logs, such as those of plans, are left out beside others.

    Raises MedscaleError for a name after a study's that no run has.

    Args:
        workdir: folder of the study's outputs.
        slurm_logs: folder of SLURM's logs of jobs, of all workdirs.
        place: the workdir as SLURM's logs name it.
        target: a path below the workdir such as results/skin/ddp_2gpu, a study, or a study and a
            run; empty for all.
        data_of: function from a study to the one whose index and shards it uses.
    """
    logs, (study, run) = workdir / "logs", _parts(target)
    data = data_of(study) if study else ""
    if run and "." not in run:  # a log of the study has one
        RunSpec.parse(run)
    if not study:  # the paper and files about all studies have logs of their own
        name = Path(target).name
        files = [*(logs.glob if name == "paper" or "." in name else logs.rglob)("*.log")]
    elif run:
        files = [
            file for folder in (study, f"{study}/{run}") for file in logs.glob(f"{folder}/*.log")
        ]
    else:
        files = [*(logs / study).rglob("*.log")]
    if study:
        files += logs.glob(f"{data}/*.log")
        data_folders = {data, *(f"{data}_{shards}" for shards in (SHARDS, DETECT_SHARDS))}
        files += [
            log
            for log in slurm_logs.glob("rule_*/*/*.log")
            if log.parent.name in data_folders or _is_job_of(log.parent.name, study, run)
            if is_of(log, place)
        ]
    filled = {file for file in files if file.stat().st_size}
    yield from sorted(filled or set(files), key=lambda file: file.stat().st_mtime)


def _is_job_of(folder: str, study: str, run: str) -> bool:
    """Whether the name of a folder of SLURM's logs, the wildcards of a job, names study and run.

    Another study may begin with the same word, and another run with the same name.
    """
    match = JOB.fullmatch(folder.removeprefix(study)) if folder.startswith(study) else None
    if match is None:
        return False
    return match["name"] == run or (not run and (not match["name"] or _is_of_study(match["name"])))


def _is_of_study(name: str) -> bool:
    return name in (SHARDS, DETECT_SHARDS) or RunSpec.is_name(name)


def _parts(target: str) -> tuple[str, str]:
    """Return study and run of a target; empty strings where it names none."""
    folder, *parts = ("", *PurePosixPath(target).parts)
    if parts and parts[0] in (*WITH_RUNS, *WITHOUT_RUNS):
        folder, *parts = parts
    if folder == "data" and parts[:1] == ["raw"]:
        parts = parts[1:]
    study, run = [*parts, "", ""][:2]
    if study in TARGETS or "." in study:
        return "", ""
    return study, "" if folder in WITHOUT_RUNS else run


def is_path_elsewhere(target: str, studies: Container[str]) -> bool:
    """Return whether a target is a path that lies outside the workdir of the study.

    ``target``: relative to the workdir if it lies in it; ``studies``: names of all studies.
    """
    path = PurePosixPath(target)
    if path.is_absolute() or ".." in path.parts:
        return True
    first, *rest = path.parts or ("",)
    is_own = first in (*FOLDERS, *TARGETS) or first in studies
    return bool(rest) and not is_own and Path(target).exists()
