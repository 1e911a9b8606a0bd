# A traced window of any run's training (no result of it counts), and what a study's report shows of those configured.


rule profile:
    input:
        lambda w: f"{GRAPH.shards(w.study, w.run)}/meta.json",
    output:
        directory("profiled/{study}/{run}"),
    log:
        "logs/{study}/{run}/profile.log",
    benchmark:
        "benchmarks/{study}/{run}/profile.tsv"
    threads: lambda w: GRAPH.plan(w.study, w.run).procs_per_node
    resources:
        timed=1,
    params:
        plan=lambda w: GRAPH.profile_plan(w.study, w.run),
        settings=lambda w: GRAPH.profile_settings(w.study),
        shards=lambda w: GRAPH.shards(w.study, w.run),
        script=GRAPH.script("profile_run.py"),
        code=GRAPH.code("profile_run.py"),
    shell:
        "python {params.script} --plan {params.plan:q} --settings {params.settings:q} --shards {params.shards}"
        " --out {output} --log {log}"
