# What a study measures besides its runs (config section `benchmarks`): repetitions as CSV, then a figure and a table.


rule enhance:
    input:
        index="data/{study}/index.parquet",
    output:
        rows="measured/{study}/enhance.csv",
        about="measured/{study}/enhance.json",
    threads: DATASETS.enhance_workers
    resources:
        timed=ALONE,
    params:
        raw=DATASETS.raw,
        preprocess=DATASETS.section("preprocess"),
        settings=DATASETS.benchmark("enhance"),
        marks=DATASETS.marks,
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
    threads: DATASETS.loading_processes
    resources:
        timed=ALONE,
    params:
        raw=DATASETS.raw,
        preprocess=DATASETS.section("preprocess"),
        augment=DATASETS.section("augment"),
        settings=DATASETS.benchmark("loading"),
        marks=DATASETS.marks,
    shell:
        "python {params.script} --index {input.index} --raw {params.raw:q} --shards data/{wildcards.study}/shards"
        " --preprocess {params.preprocess:q} --augment {params.augment:q} --settings {params.settings:q}"
        " --marks {params.marks:q} --out measured/{wildcards.study} --log {log}"


rule benchmark_report:
    input:
        rows="measured/{study}/{measured}.csv",
        about="measured/{study}/{measured}.json",
        reported=GRAPH.own("reported.yaml"),
    output:
        figure=shown("figures/{study}/{measured}.pdf", "{measured}", caption="measured"),
        table="tables/{study}/{measured}.tex",
        digits=shown_table("tables/{study}/{measured}.csv", "{measured}"),
        said="tables/{study}/{measured}.json",
    log:
        "logs/{study}/{measured}_report.log",
    benchmark:
        "benchmarks/{study}/{measured}_report.tsv"
    wildcard_constraints:
        measured="|".join(BENCHMARKS),
    params:
        script=GRAPH.script("benchmark_report.py"),
    shell:
        "python {params.script} {wildcards.measured} --study {wildcards.study} --measured measured/{wildcards.study}"
        " --reported {input.reported} --figures figures/{wildcards.study} --tables tables/{wildcards.study} --log {log}"
