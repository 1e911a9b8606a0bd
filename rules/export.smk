# Trained runs as ONNX files, held against PyTorch on the test images; then how fast each way of running them is.


rule export:
    input:
        results=lambda w: GRAPH.exported(w.study),
        shards="data/{study}/shards/meta.json",
    output:
        files=directory("exported/{study}"),
        rows="measured/{study}/export.csv",
        about="measured/{study}/export.json",
    log:
        "logs/{study}/export.log",
    benchmark:
        "benchmarks/{study}/export.tsv"
    threads: workflow.cores or 1
    resources:
        timed=1,
    params:
        settings=lambda w: GRAPH.benchmark(w.study, "export").model_dump_json(),
        marks=lambda w: GRAPH.marks(w.study),
        script=GRAPH.script("export.py"),
        code=GRAPH.code("export.py"),
    shell:
        "python {params.script} {input.results} --shards data/{wildcards.study}/shards --settings {params.settings:q}"
        " --marks {params.marks:q} --files {output.files} --out measured/{wildcards.study} --log {log}"


rule inference:
    input:
        results=lambda w: GRAPH.exported(w.study),
        files="exported/{study}",
        index="data/{study}/index.parquet",
    output:
        rows="measured/{study}/inference.csv",
        about="measured/{study}/inference.json",
    log:
        "logs/{study}/inference.log",
    benchmark:
        "benchmarks/{study}/inference.tsv"
    threads: workflow.cores or 1
    resources:
        timed=1,
    params:
        raw=lambda w: GRAPH.raw_as_seen(w.study),
        settings=lambda w: GRAPH.benchmark(w.study, "inference").model_dump_json(),
        marks=lambda w: GRAPH.marks(w.study),
        script=GRAPH.script("inference.py"),
        code=GRAPH.code("inference.py"),
    shell:
        "python {params.script} {input.results} --files {input.files} --index {input.index} --raw {params.raw:q}"
        " --settings {params.settings:q} --marks {params.marks:q} --out measured/{wildcards.study} --log {log}"
