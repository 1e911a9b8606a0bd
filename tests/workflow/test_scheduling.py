"""Snakemake looks at the jobs that are ready once a second, however many jobs have ended."""

import os
import re
import subprocess
import sys

import pytest

from medscale.base.code import ROOT
from medscale.base.files import write_text

# Forty jobs that two cores need about 4 s for, and the most timers that ran at a time.
SNAKEFILE = """
import sys, threading, time

COUNTS = [0]

def count():
    while True:
        COUNTS.append(sum(isinstance(thread, threading.Timer) for thread in threading.enumerate()))
        time.sleep(0.05)

onstart:
    {setup}
    threading.Thread(target=count, daemon=True).start()

onsuccess:
    print("most timers:", max(COUNTS), file=sys.stderr)

rule all:
    input:
        expand("{{number}}.txt", number=range(40))

rule file:
    output:
        "{{number}}.txt"
    shell:
        "sleep 0.2; touch {{output}}"
"""
IMPORT = "from medscale.workflow.scheduling import use_one_timer"


@pytest.mark.parametrize(
    ("setup", "one_timer"),
    [(f"{IMPORT}; use_one_timer(workflow.scheduler)", True), ("pass", False)],
)
def test_the_scheduler_has_one_timer(tmp_path, setup, one_timer):
    write_text(tmp_path / "Snakefile", SNAKEFILE.format(setup=setup))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--profile", "none"]
    process = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=dict(os.environ)
    )
    assert process.returncode == 0, process.stderr
    most = int(re.search(r"most timers: (\d+)", process.stderr)[1])
    # If this fails without the setup, Snakemake has mended it: remove the module and its call.
    assert (most == 1) == one_timer, most


def test_the_project_uses_it():
    assert "use_one_timer(workflow.scheduler)" in (ROOT / "Snakefile").read_text(encoding="utf-8")
