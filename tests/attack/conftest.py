"""The table of the attacks: how many were tried, and how many the project survived.

A test counts its attempts by ``record_property("tried", …)`` and by "survived"; one that does not
is a single attempt.
"""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call" and "attack" in report.keywords
    ]
    if not reports:
        return
    terminalreporter.section("attacks")
    width = max(len(_name(report)) for report in reports)
    terminalreporter.write_line(f"{'attack':<{width}}  {'tried':>6}  {'survived':>8}")
    for report in reports:
        counts = dict(report.user_properties)
        trials = counts.get("tried", 1)
        successes = counts.get("survived", trials if report.passed else 0)
        terminalreporter.write_line(f"{_name(report):<{width}}  {trials:>6}  {successes:>8}")


def _name(report: Any) -> str:
    return report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
