# Scaling analysis of a study: speedup by series, fitted laws beside the published figures, cost until a target.


rule scaling_report:
    input:
        config="config.resolved.json",
        results=lambda w: STUDY.shown(w.study) + STUDY.localized(w.study),
        histories=lambda w: STUDY.histories(w.study),
        reported=STUDY.own("reported.yaml"),
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
        script=STUDY.script("scaling_report.py"),
        code=STUDY.code("scaling_report.py"),
    shell:
        "python {params.script} {input.results} --study {wildcards.study} --config {input.config}"
        " --runs runs/{wildcards.study} --reported {input.reported}"
        " --figures figures/{wildcards.study} --tables tables/{wildcards.study} --log {log}"
