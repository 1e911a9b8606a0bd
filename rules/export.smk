# Trained runs as ONNX files, compared with PyTorch on test images; then the speed of each way.


rule export:
    input:
        results=DATASETS.exported,
        shards="data/{study}/shards/meta.json",
    output:
        files=directory("exported/{study}"),
        rows="measured/{study}/export.csv",
        about="measured/{study}/export.json",
    threads: workflow.cores or 1
    resources:
        timed=1,
    params:
        settings=DATASETS.benchmark("export"),
        marks=DATASETS.marks,
    shell:
        "python {params.script} {input.results} --shards data/{wildcards.study}/shards"
        " --settings {params.settings:q} --marks {params.marks:q}"
        " --files {output.files} --out measured/{wildcards.study} --log {log}"


rule inference:
    input:
        results=DATASETS.exported,
        files="exported/{study}",
        index="data/{study}/index.parquet",
    output:
        rows="measured/{study}/inference.csv",
        about="measured/{study}/inference.json",
    threads: workflow.cores or 1
    resources:
        timed=1,
    params:
        raw=DATASETS.raw,
        settings=DATASETS.benchmark("inference"),
        marks=DATASETS.marks,
    shell:
        "python {params.script} {input.results} --files {input.files} --index {input.index}"
        " --raw {params.raw:q} --settings {params.settings:q} --marks {params.marks:q}"
        " --out measured/{wildcards.study} --log {log}"
