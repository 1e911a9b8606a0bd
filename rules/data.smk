# Raw images to shards: generate (demo only), index with audit and split, preprocess under Dask.


rule demo_data:
    output:
        "data/raw/{study}/demo.json",
    log:
        "logs/{study}/demo_data.log",
    benchmark:
        "benchmarks/{study}/demo_data.tsv"
    threads: workflow.cores or 1
    params:
        kind=lambda w: GRAPH.config.study(w.study).source.kind,
        options=lambda w: GRAPH.options(w.study),
        script=GRAPH.script("demo_data.py"),
        code=GRAPH.code("demo_data.py"),
    shell:
        "python {params.script} --kind {params.kind} --options {params.options:q}"
        " --out data/raw/{wildcards.study} --log {log}"


rule index:
    input:
        lambda w: GRAPH.demo_marker(w.study),
    output:
        index="data/{study}/index.parquet",
        audit="data/{study}/audit.csv",
        counts="data/{study}/audit.json",
    log:
        "logs/{study}/index.log",
    benchmark:
        "benchmarks/{study}/index.tsv"
    container:
        None if GRAPH.dask_is_jobs else IMAGE
    threads: GRAPH.dask_workers()
    resources:
        start=SLURM.start_dask(),
    params:
        source=lambda w: GRAPH.section(w.study, "source"),
        split=lambda w: GRAPH.section(w.study, "split"),
        classes=lambda w: GRAPH.section(w.study, "classes"),
        state=lambda w: GRAPH.raw_state(w.study),
        dask=GRAPH.config.dask.model_dump_json(),
        script=GRAPH.script("index.py"),
        code=GRAPH.code("index.py"),
    shell:
        "{resources.start}python {params.script} --source {params.source:q} --split {params.split:q}"
        " --classes {params.classes:q} --dask {params.dask:q} --out data/{wildcards.study} --log {log}"


# Only meta.json, written last, is declared: chunks that are there stay when the job is interrupted or fails.
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
    params:
        raw=lambda w: GRAPH.raw_as_seen(w.study),
        preprocess=lambda w: GRAPH.preprocess(w.study, w.shards),
        boxes=lambda w: "--boxes" if w.shards == "shards_detect" else "",
        beside=lambda w: [
            f"--beside {f}" for f in GRAPH.shards_beside(w.study, w.shards)
        ],
        dask=GRAPH.config.dask.model_dump_json(),
        script=GRAPH.script("shards.py"),
        code=GRAPH.code("shards.py"),
    shell:
        "{resources.start}python {params.script} --index {input.index} --raw {params.raw:q} --preprocess {params.preprocess:q}"
        " --dask {params.dask:q} {params.boxes} {params.beside} --out data/{wildcards.study}/{wildcards.shards} --log {log}"


rule data:
    input:
        [f"{shards}/meta.json" for s in GRAPH.studies for shards in GRAPH.shard_sets(s)],
