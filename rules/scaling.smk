# Scaling analysis of a study: speedup by series, fitted laws beside the published figures, cost until a target.


rule scaling_report:
    input:
        config="config.resolved.json",
        results=lambda w: GRAPH.shown(w.study) + GRAPH.localized(w.study),
        histories=lambda w: GRAPH.histories(w.study),
        reported=GRAPH.own("reported.yaml"),
    output:
        [shown(f"figures/{{study}}/{name}.pdf", name) for name in SCALING_FIGURES],
        [shown_table(f"tables/{{study}}/{name}.csv", name) for name in SCALING_TABLES],
        expand("tables/{{study}}/{name}.tex", name=SCALING_TABLES),
        facts="tables/{study}/scaling.json",
    log:
        "logs/{study}/scaling_report.log",
    benchmark:
        "benchmarks/{study}/scaling_report.tsv"
    params:
        script=GRAPH.script("scaling_report.py"),
    shell:
        "python {params.script} {input.results} --study {wildcards.study} --config {input.config}"
        " --runs runs/{wildcards.study} --reported {input.reported}"
        " --figures figures/{wildcards.study} --tables tables/{wildcards.study} --log {log}"
