# What a study measures besides its runs (config section `benchmarks`): repetitions as CSV, then a figure and a table.


rule enhance:
    input:
        index="data/{study}/index.parquet",
    output:
        rows="measured/{study}/enhance.csv",
        about="measured/{study}/enhance.json",
    log:
        "logs/{study}/enhance.log",
    benchmark:
        "benchmarks/{study}/enhance.tsv"
    threads: lambda w: max(GRAPH.benchmark(w.study, "enhance").workers)
    resources:
        timed=ALONE,
    params:
        raw=lambda w: GRAPH.raw_as_seen(w.study),
        preprocess=lambda w: GRAPH.section(w.study, "preprocess"),
        settings=lambda w: GRAPH.benchmark(w.study, "enhance").model_dump_json(),
        marks=lambda w: GRAPH.marks(w.study),
        script=GRAPH.script("enhance.py"),
        code=GRAPH.code("enhance.py"),
    shell:
        "python {params.script} --index {input.index} --raw {params.raw:q} --preprocess {params.preprocess:q}"
        " --settings {params.settings:q} --marks {params.marks:q} --out measured/{wildcards.study} --log {log}"


rule loading:
    input:
        index="data/{study}/index.parquet",
        shards="data/{study}/shards/meta.json",
    output:
        rows="measured/{study}/loading.csv",
        about="measured/{study}/loading.json",
    log:
        "logs/{study}/loading.log",
    benchmark:
        "benchmarks/{study}/loading.tsv"
    threads: lambda w: max(GRAPH.benchmark(w.study, "loading").processes)
    resources:
        timed=ALONE,
    params:
        raw=lambda w: GRAPH.raw_as_seen(w.study),
        preprocess=lambda w: GRAPH.section(w.study, "preprocess"),
        augment=lambda w: GRAPH.section(w.study, "augment"),
        settings=lambda w: GRAPH.benchmark(w.study, "loading").model_dump_json(),
        marks=lambda w: GRAPH.marks(w.study),
        script=GRAPH.script("loading.py"),
        code=GRAPH.code("loading.py"),
    shell:
        "python {params.script} --index {input.index} --raw {params.raw:q} --shards data/{wildcards.study}/shards"
        " --preprocess {params.preprocess:q} --augment {params.augment:q} --settings {params.settings:q}"
        " --marks {params.marks:q} --out measured/{wildcards.study} --log {log}"
