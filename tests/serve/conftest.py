"""Shared fixtures: a small study that is trained once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raw_study import make_study


@pytest.fixture(scope="session")
def study_result(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A study from raw files to a result of two replicates: one trained, one a changed copy."""
    return make_study(tmp_path_factory.mktemp("predict"))
