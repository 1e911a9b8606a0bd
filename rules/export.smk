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
        "python {resources.script:q} {input.results:q} --shards data/{wildcards.study:q}/shards"
        " --settings {params.settings:q} --marks {params.marks:q}"
        " --files {output.files:q} --out measured/{wildcards.study:q} --log {log:q}"


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
        raw=DATASETS.raw,
    params:
        settings=DATASETS.benchmark("inference"),
        marks=DATASETS.marks,
    shell:
        "python {resources.script:q} {input.results:q} --files {input.files:q}"
        " --index {input.index:q} --raw {resources.raw:q} --settings {params.settings:q}"
        " --marks {params.marks:q}"
        " --out measured/{wildcards.study:q} --log {log:q}"
