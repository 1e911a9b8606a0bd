# Detection runs of a study, as a figure and a table of their own.


rule detection_report:
    input:
        results=lambda w: GRAPH.localized(w.study),
        shards="data/{study}/shards_detect/meta.json",
    output:
        shown("figures/{study}/detection.pdf", "detection"),
        shown_table("tables/{study}/detection.csv", "detection"),
        "tables/{study}/detection.tex",
    log:
        "logs/{study}/detection_report.log",
    benchmark:
        "benchmarks/{study}/detection_report.tsv"
    params:
        script=GRAPH.script("detection_report.py"),
    shell:
        "python {params.script} {input.results} --shards data/{wildcards.study}/shards_detect"
        " --figures figures/{wildcards.study} --tables tables/{wildcards.study} --log {log}"
