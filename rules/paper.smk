# Result folders to figures, tables, numbers and the paper. A change of the text alone rebuilds the paper alone.


rule study_report:
    input:
        config="config.resolved.json",
        index="data/{study}/index.parquet",
        audit="data/{study}/audit.csv",
        counts="data/{study}/audit.json",
        shards="data/{study}/shards/meta.json",
        results=lambda w: GRAPH.shown(w.study),
        quality="tables/{study}/quality.json",
        reported=GRAPH.own("reported.yaml"),
    output:
        [shown(f"figures/{{study}}/{name}.pdf", name) for name in BASE_FIGURES],
        [shown_table(f"tables/{{study}}/{name}.csv", name) for name in BASE_TABLES],
        expand("tables/{{study}}/{name}.tex", name=BASE_TABLES),
        facts="tables/{study}/facts.json",
    log:
        "logs/{study}/study_report.log",
    benchmark:
        "benchmarks/{study}/study_report.tsv"
    params:
        script=GRAPH.script("study_report.py"),
    shell:
        "python {params.script} {input.results} --study {wildcards.study} --config {input.config}"
        " --data data/{wildcards.study} --reported {input.reported} --quality {input.quality}"
        " --figures figures/{wildcards.study} --tables tables/{wildcards.study} --log {log}"


rule variants:
    input:
        config="config.resolved.json",
        results=lambda w: GRAPH.beside(w.study),
    output:
        shown("figures/{study}/variants.pdf", "variants"),
        shown_table("tables/{study}/variants.csv", "variants"),
        "tables/{study}/variants.tex",
        "tables/{study}/variants.json",
    log:
        "logs/{study}/variants.log",
    benchmark:
        "benchmarks/{study}/variants.tsv"
    params:
        script=GRAPH.script("variants.py"),
    shell:
        "python {params.script} {input.results} --study {wildcards.study} --config {input.config}"
        " --figures figures/{wildcards.study} --tables tables/{wildcards.study} --log {log}"


# Every replicate of every run, and the machines and code that made them.
rule provenance_report:
    input:
        config="config.resolved.json",
        results=GRAPH.results(),
    output:
        [
            shown_table(
                f"tables/{name}.csv",
                name,
                caption="provenance",
                category="all studies",
            )
            for name in ["runs", "provenance"]
        ],
        expand("tables/{name}.tex", name=["runs", "provenance"]),
        said="tables/provenance.json",
    log:
        "logs/provenance_report.log",
    benchmark:
        "benchmarks/provenance_report.tsv"
    params:
        script=GRAPH.script("provenance_report.py"),
    shell:
        "python {params.script} {input.results} --config {input.config} --tables tables --log {log}"


rule numbers:
    input:
        GRAPH.facts("variants", "profile", *BENCHMARKS),
        "tables/provenance.json",
    output:
        "paper/numbers.tex",
    log:
        "logs/numbers.log",
    benchmark:
        "benchmarks/numbers.tsv"
    params:
        script=GRAPH.script("paper_numbers.py"),
    shell:
        "python {params.script} {input} --out {output} --log {log}"


rule paper_pdf:
    input:
        GRAPH.figures(),
        GRAPH.tables(),
        GRAPH.datasheets(),
        GRAPH.own("paper/references.bib", "paper/sections/*"),
        text=GRAPH.own("paper/paper.tex"),
        facts=GRAPH.facts("variants"),
        made=rules.provenance_report.output,
        numbers="paper/numbers.tex",
    output:
        shown("paper/paper.pdf", "paper", category="all studies", folder="paper"),
    log:
        "logs/paper.log",
    benchmark:
        "benchmarks/paper.tsv"
    params:
        script=GRAPH.script("paper.py"),
    shell:
        "python {params.script} {input.facts} --provenance tables/provenance.json --text {input.text}"
        " --numbers {input.numbers} --out {output} --log {log}"


rule figures:
    input:
        GRAPH.figures(),


rule paper:
    input:
        "paper/paper.pdf",
