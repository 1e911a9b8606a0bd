# Raw images to shards: generate (demo only), index with audit and split, preprocess under Dask.


rule demo_data:
    output:
        "data/raw/{study}/demo.json",
    threads: workflow.cores or 1
    params:
        kind=DATASETS.kind,
        generator=DATASETS.generator_code,
        options=DATASETS.source_options,
    shell:
        "python {resources.script:q} --kind {params.kind:q} --options {params.options:q}"
        " --out data/raw/{wildcards.study:q} --log {log:q}"


# Resources rerun nothing: any number of Dask's workers writes the same bytes, and `state` stands
# for the content of the raw folder, not its place.
rule index:
    input:
        DATASETS.index_inputs,
    output:
        index="data/{study}/index.parquet",
        audit="data/{study}/audit.csv",
        counts="data/{study}/audit.json",
    container:
        None if GRAPH.dask_is_jobs else IMAGE
    threads: GRAPH.dask_workers()
    resources:
        start=SLURM.start_dask(),
        dask=DATASETS.dask,
        raw=DATASETS.raw,
    params:
        source=DATASETS.source,
        layout=DATASETS.layout_code,
        split=DATASETS.section("split"),
        classes=DATASETS.classes_option,
        state=DATASETS.raw_state,
    shell:
        "{resources.start}python {resources.script:q} --source {params.source:q}"
        " --raw {resources.raw:q} --split {params.split:q} {params.classes:q}"
        " --dask {resources.dask:q} --out data/{wildcards.study:q} --log {log:q}"


# Only meta.json, written last, is declared: chunks stay when the job is interrupted or fails.
# `shards_detect` has the images at detection's size, and their boxes.
rule shards:
    input:
        index="data/{study}/index.parquet",
    output:
        "data/{study}/{shards}/meta.json",
    log:
        "logs/{study}/{shards}.log",
    benchmark:
        "benchmarks/{study}/{shards}.tsv"
    wildcard_constraints:
        shards="shards(_detect)?",
    container:
        None if GRAPH.dask_is_jobs else IMAGE
    threads: GRAPH.dask_workers()
    resources:
        start=SLURM.start_dask(),
        dask=DATASETS.dask,
        limits=DATASETS.limits,
        raw=DATASETS.raw,
        siblings=DATASETS.sibling_options,
    params:
        preprocess=DATASETS.shard_preprocessing,
        boxes=DATASETS.box_option,
    shell:
        "{resources.start}python {resources.script:q} --index {input.index:q}"
        " --raw {resources.raw:q} --preprocess {params.preprocess:q} --dask {resources.dask:q}"
        " --limits {resources.limits:q} {params.boxes:q} {resources.siblings}"
        " --out data/{wildcards.study:q}/{wildcards.shards:q} --log {log:q}"


rule data:
    input:
        GRAPH.shard_files(),
