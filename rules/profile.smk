# Some traced steps of any run's training; its network is thrown away.


rule profile:
    input:
        RUNS.shards_file,
    output:
        directory("profiled/{study}/{run}"),
    threads: RUNS.processes
    resources:
        timed=1,
        script=GRAPH.script("profile_run.py"),
    params:
        plan=RUNS.profile_spec,
        settings=RUNS.profile_settings,
        shards=RUNS.shards,
    shell:
        "python {resources.script:q} --plan {params.plan:q} --settings {params.settings:q}"
        " --shards {params.shards:q} --out {output:q} --log {log:q}"
