# The paper, from its templates and from the figures, tables and facts of all chapters.


rule paper_pdf:
    input:
        REPORT.figures(),
        REPORT.tables(),
        REPORT.documents(),
        GRAPH.own("paper/references.bib", "paper/*/*.j2"),
        text=GRAPH.own("paper/paper.tex.j2"),
        facts=REPORT.facts(shared=False),
        shared=REPORT.facts(shared=True),
    output:
        "paper/paper.pdf",
    log:
        "logs/paper.log",
    benchmark:
        "benchmarks/paper.tsv"
    resources:
        script=GRAPH.script("paper.py"),
    params:
        shared=REPORT.shared_options(),
    shell:
        "python {resources.script:q} {input.facts:q} {params.shared:q}"
        " --text {input.text:q} --out {output:q} --log {log:q}"


rule paper:
    input:
        "paper/paper.pdf",
