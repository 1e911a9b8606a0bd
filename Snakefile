# The graph from raw images to the paper. Targets a person types, from the project's root:
#   snakemake results/glaucoma/ddp_amp_2gpu     one result (any valid run name)
#   snakemake paper | figures | results         everything of that kind
#   snakemake --profile demo …                  the same names at demo scale, below work/demo
#   snakemake -n …                              what would run, in 15 lines; -np: each job
import gc
import sys
from functools import partial

# Full collections then leave out the objects of Snakemake's modules (a tenth of a dry run's time).
gc.freeze()
try:
    from medscale.resources.submit import Submission
    from medscale.workflow.chapters import Report
    from medscale.workflow.datasets import Datasets
    from medscale.workflow.graph import Graph, or_end
    from medscale.workflow.outlook import at_exit
    from medscale.workflow.progress.expectations import announce
    from medscale.workflow.progress.terminal import shorten
    from medscale.workflow.runs import ALONE, Runs
    from medscale.workflow.scheduling import use_one_timer
    from medscale.workflow.stages import complete, record_code
except ModuleNotFoundError as error:
    sys.exit(
        f"medscale: error: this Python has no module {error.name!r}; run `make setup` in the "
        "project's folder, then `source .venv/bin/activate`, and Snakemake again"
    )

shorten(workflow.logger_manager, sys.argv[1:])
GRAPH = Graph(config, sys.argv[1:], workflow.overwrite_workdir, workflow.configfiles)
GRAPH.equip_jobs()
DATASETS, RUNS, REPORT = Datasets(GRAPH), Runs(GRAPH), Report(GRAPH)
config["first_page"] = REPORT.first_page()
IMAGE = GRAPH.container(workflow.deployment_settings.deployment_method)
SLURM = Submission(GRAPH, IMAGE, workflow.deployment_settings)
# One timed job at a time, unless a profile says more. profiles/default would win over the others.
if "timed" not in workflow.global_resources:
    workflow.register_resource("timed", 1)


workdir: GRAPH.workdir


report: "report/workflow.rst"


container: IMAGE


for file in GRAPH.rule_files:

    include: file


complete(workflow.rules, GRAPH)
SLURM.set_resources(workflow.rules)


onstart:
    use_one_timer(workflow.scheduler)
    or_end(partial(DATASETS.ready, workflow))
    RUNS.refuse_networks(workflow)
    executor = workflow.executor_plugin.name
    SLURM.ready(executor)
    or_end(partial(record_code, REPORT.chapters, GRAPH, workflow.dag.jobs))
    announce(workflow, GRAPH, SLURM.place)


rule all:
    default_target: True
    input:
        REPORT.final_outputs(),


GRAPH.check_targets(workflow.rules, sys.argv)
at_exit(GRAPH, workflow)
