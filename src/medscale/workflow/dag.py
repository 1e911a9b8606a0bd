"""Snakemake's graph of the jobs for a target, in this process; nothing is run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medscale.base.code import ROOT
from medscale.base.environment import kept_environment
from medscale.base.errors import MedscaleError
from medscale.workflow.graph import Graph
from medscale.workflow.targets import unknown_target


@contextmanager
def planned(graph: Graph, changes: Mapping[str, Any], target: str, in_image: bool) -> Iterator[Any]:
    """Yield Snakemake's graph of the jobs for a target.

    Raises MedscaleError for a target that no rule makes.

    Args:
        graph: the checked configuration.
        changes: the settings laid over config.yaml that made it.
        target: a file, folder or rule as Snakemake takes it.
        in_image: whether jobs run in the image (``--sdm apptainer``).
    """
    from snakemake.api import SnakemakeApi
    from snakemake.exceptions import MissingRuleException, WorkflowError
    from snakemake.settings.types import (
        ConfigSettings,
        DAGSettings,
        DeploymentMethod,
        DeploymentSettings,
        OutputSettings,
        ResourceSettings,
    )

    folder = Path.cwd()  # the Snakefile's `workdir` changes it for the whole process
    settings = DAGSettings(targets={target}, force_incomplete=True)
    methods = {DeploymentMethod.APPTAINER} if in_image else set()
    try:
        with (
            kept_environment(),  # the Snakefile sets variables for jobs
            SnakemakeApi(OutputSettings(dryrun=True, log_level_override="ERROR")) as api,
        ):
            workflow_api = api.workflow(
                resource_settings=ResourceSettings(cores=os.cpu_count()),
                config_settings=ConfigSettings(config=dict(changes)),
                deployment_settings=DeploymentSettings(deployment_method=methods),
                snakefile=ROOT / "Snakefile",
            )
            workflow_api.dag(settings)
            workflow = workflow_api._workflow
            # The public functions print the graph or run it; all begin with these two calls.
            workflow._prepare_dag(forceall=False, ignore_incomplete=False, lock_warn_only=True)
            workflow._build_dag()
            yield workflow.dag
    except MissingRuleException:
        os.chdir(graph.workdir)  # as in the rules; Snakemake has left the folder
        rules = workflow_api._workflow.rules
        reason = unknown_target(graph.config, target, rules, graph.options)
        other = f"{target} exists, but is no output of a rule"
        raise MedscaleError(reason or other) from None
    except WorkflowError as error:
        raise MedscaleError(f"{target}: {error or type(error).__name__}") from None
    finally:
        os.chdir(folder)
