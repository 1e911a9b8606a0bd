# Calibration, operating points, subgroups, tests between runs and ensembles of a study; Grad-CAM of its baseline.


rule quality_report:
    input:
        config="config.resolved.json",
        index="data/{study}/index.parquet",
        results=lambda w: GRAPH.shown(w.study),
        predictions=lambda w: [
            f"{folder}/predictions.parquet"
            for folder in GRAPH.shown_replicates(w.study)
        ],
    output:
        [shown(f"figures/{{study}}/{name}.pdf", name) for name in QUALITY_FIGURES],
        [shown_table(f"tables/{{study}}/{name}.csv", name) for name in QUALITY_TABLES],
        expand("tables/{{study}}/{name}.tex", name=QUALITY_TABLES),
        facts="tables/{study}/quality.json",
    log:
        "logs/{study}/quality_report.log",
    benchmark:
        "benchmarks/{study}/quality_report.tsv"
    params:
        replicates=lambda w: [
            f"--replicates {folder}" for folder in GRAPH.shown_replicates(w.study)
        ],
        script=GRAPH.script("quality.py"),
    shell:
        "python {params.script} report {input.results} {params.replicates} --study {wildcards.study}"
        " --config {input.config} --index {input.index} --figures figures/{wildcards.study}"
        " --tables tables/{wildcards.study} --log {log}"


rule gradcam_report:
    input:
        lambda w: f"results/{w.study}/{GRAPH.config.study(w.study).baseline}",
    output:
        shown("figures/{study}/gradcam.pdf", "gradcam"),
    log:
        "logs/{study}/gradcam_report.log",
    params:
        script=GRAPH.script("quality.py"),
    shell:
        "python {params.script} gradcam {input} --figures figures/{wildcards.study} --log {log}"
