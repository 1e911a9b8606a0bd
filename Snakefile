# The graph from raw images to the paper. Targets a person types, from the project's root:
#   snakemake results/glaucoma/ddp_amp_2gpu     one result (any valid run name)
#   snakemake paper | figures | results         everything of that kind
#   snakemake --profile demo …                  the same names at demo scale, below work/demo
import sys

from medscale.config.figures import (
    BENCHMARKS,
    PROFILES,
    FIGURES as BASE_FIGURES,
    QUALITY_FIGURES,
    QUALITY_TABLES,
    SCALING_FIGURES,
    SCALING_TABLES,
    TABLES as BASE_TABLES,
)
from medscale.resources.submit import Submission
from medscale.workflow.datasets import Datasets
from medscale.workflow.graph import Graph, shown, shown_table
from medscale.workflow.runs import ALONE, Runs
from medscale.workflow.stages import complete, record_code

GRAPH = Graph(config, targets=sys.argv[1:], directory=workflow.overwrite_workdir)
GRAPH.equip_jobs()
DATASETS, RUNS = Datasets(GRAPH), Runs(GRAPH)
IMAGE = GRAPH.container(workflow.deployment_settings.deployment_method)
SLURM = Submission(GRAPH, IMAGE, workflow.deployment_settings)
# One timed thing at a time, unless a profile says more. Not in profiles/default: that would win over the other profiles.
if "timed" not in workflow.global_resources:
    workflow.register_resource("timed", 1)


workdir: GRAPH.workdir


report: "report/workflow.rst"


container: IMAGE


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/benchmark.smk"
include: "rules/export.smk"
include: "rules/detect.smk"
include: "rules/quality.smk"
include: "rules/scaling.smk"
include: "rules/profile.smk"
include: "rules/paper.smk"


complete(workflow.rules, GRAPH)
SLURM.ask(workflow.rules)


onstart:
    SLURM.ready(workflow.executor_plugin.name)
    record_code(GRAPH.workdir)


rule all:
    default_target: True
    input:
        "paper/paper.pdf",
