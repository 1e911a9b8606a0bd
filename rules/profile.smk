# A traced window of any run's training (no result of it counts), and what a study's report shows of those configured.


rule profile:
    input:
        RUNS.shards_file,
    output:
        directory("profiled/{study}/{run}"),
    threads: RUNS.processes
    resources:
        timed=1,
    params:
        plan=RUNS.profile_spec,
        settings=RUNS.profile_settings,
        shards=RUNS.shards,
        script=GRAPH.script("profile_run.py"),
    shell:
        "python {params.script} --plan {params.plan:q} --settings {params.settings:q} --shards {params.shards}"
        " --out {output} --log {log}"


rule profile_report:
    input:
        lambda w: GRAPH.profiled(w.study),
    output:
        [shown(f"figures/{{study}}/{name}.pdf", name) for name in PROFILES],
        [shown_table(f"tables/{{study}}/{name}.csv", name) for name in PROFILES],
        expand("tables/{{study}}/{name}.tex", name=PROFILES),
        said="tables/{study}/profile.json",
    log:
        "logs/{study}/profile_report.log",
    benchmark:
        "benchmarks/{study}/profile_report.tsv"
    params:
        script=GRAPH.script("profile_report.py"),
    shell:
        "python {params.script} {input} --figures figures/{wildcards.study} --tables tables/{wildcards.study} --log {log}"
