# Scaling analysis of a study: speedup by series, fitted laws beside the published figures, cost until a target.


rule scaling_report:
    input:
        config="config.resolved.json",
        results=lambda w: STUDY.shown(w.study) + STUDY.localized(w.study),
        histories=lambda w: STUDY.histories(w.study),
        reported=STUDY.own("reported.yaml"),
    output:
        expand("figures/{{study}}/{name}.pdf", name=SCALING_FIGURES),
        expand(
            "tables/{{study}}/{name}.{kind}", name=SCALING_TABLES, kind=["tex", "csv"]
        ),
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
