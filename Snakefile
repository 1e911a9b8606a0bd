# The graph from raw images to the paper. Targets a person types, from the project's root:
#   snakemake results/glaucoma/ddp_amp_2gpu     one result (any valid run name)
#   snakemake paper | figures | results         everything of that kind
#   snakemake --profile demo …                  the same names at demo scale, below work/demo
import sys
from functools import partial

from medscale.resources.submit import Submission
from medscale.workflow.chapters import Report
from medscale.workflow.graph import ALONE, Graph

GRAPH = Graph(config, targets=sys.argv[1:], elsewhere=workflow.overwrite_workdir)
GRAPH.equip_jobs()
REPORT = Report(GRAPH)
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
include: "rules/profile.smk"
include: "rules/report.smk"
include: "rules/paper.smk"


SLURM.ask(workflow.rules)


onstart:
    SLURM.ready(workflow.executor_plugin.name)


rule all:
    default_target: True
    input:
        "paper/paper.pdf",
        "config.resolved.json",
