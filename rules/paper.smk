# Result folders to figures, tables, numbers and the paper. A change of the text alone rebuilds the paper alone.


rule study_report:
    input:
        config="config.resolved.json",
        index="data/{study}/index.parquet",
        audit="data/{study}/audit.csv",
        counts="data/{study}/audit.json",
        shards="data/{study}/shards/meta.json",
        results=lambda w: STUDY.shown(w.study),
        quality="tables/{study}/quality.json",
        reported=STUDY.own("reported.yaml"),
    output:
        expand("figures/{{study}}/{name}.pdf", name=BASE_FIGURES),
        expand("tables/{{study}}/{name}.{kind}", name=BASE_TABLES, kind=["tex", "csv"]),
        facts="tables/{study}/facts.json",
    log:
        "logs/{study}/study_report.log",
    benchmark:
        "benchmarks/{study}/study_report.tsv"
    params:
        script=STUDY.script("study_report.py"),
        code=STUDY.code("study_report.py"),
    shell:
        "python {params.script} {input.results} --study {wildcards.study} --config {input.config}"
        " --data data/{wildcards.study} --reported {input.reported} --quality {input.quality}"
        " --figures figures/{wildcards.study} --tables tables/{wildcards.study} --log {log}"


rule variants:
    input:
        config="config.resolved.json",
        results=lambda w: STUDY.beside(w.study),
    output:
        "figures/{study}/variants.pdf",
        expand("tables/{{study}}/variants.{kind}", kind=["tex", "csv"]),
    log:
        "logs/{study}/variants.log",
    benchmark:
        "benchmarks/{study}/variants.tsv"
    params:
        script=STUDY.script("variants.py"),
        code=STUDY.code("variants.py"),
    shell:
        "python {params.script} {input.results} --study {wildcards.study} --config {input.config}"
        " --figures figures/{wildcards.study} --tables tables/{wildcards.study} --log {log}"


rule numbers:
    input:
        STUDY.facts(),
    output:
        "paper/numbers.tex",
    log:
        "logs/numbers.log",
    benchmark:
        "benchmarks/numbers.tsv"
    params:
        script=STUDY.script("paper_numbers.py"),
        code=STUDY.code("paper_numbers.py"),
    shell:
        "python {params.script} {input} --out {output} --log {log}"


rule paper_pdf:
    input:
        STUDY.figures(),
        STUDY.tables(),
        STUDY.own("paper/references.bib", "paper/sections/*"),
        text=STUDY.own("paper/paper.tex"),
        facts=expand("tables/{study}/facts.json", study=STUDY.studies),
        numbers="paper/numbers.tex",
    output:
        "paper/paper.pdf",
    log:
        "logs/paper.log",
    benchmark:
        "benchmarks/paper.tsv"
    params:
        script=STUDY.script("paper.py"),
        code=STUDY.code("paper.py"),
    shell:
        "python {params.script} {input.facts} --text {input.text} --numbers {input.numbers} --out {output} --log {log}"


rule figures:
    input:
        STUDY.figures(),


rule paper:
    input:
        "paper/paper.pdf",
