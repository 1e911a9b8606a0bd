# Benchmarks of a study (section `benchmarks`): a row per repetition, settings and machine.


rule enhance:
    input:
        index="data/{study}/index.parquet",
    output:
        rows="measured/{study}/enhance.csv",
        about="measured/{study}/enhance.json",
    threads: DATASETS.enhance_workers
    resources:
        timed=ALONE,
        raw=DATASETS.raw,
    params:
        preprocess=DATASETS.section("preprocess"),
        settings=DATASETS.benchmark("enhance"),
        marks=DATASETS.marks,
    shell:
        "python {resources.script:q} --index {input.index:q} --raw {resources.raw:q}"
        " --preprocess {params.preprocess:q} --settings {params.settings:q}"
        " --marks {params.marks:q} --out measured/{wildcards.study:q} --log {log:q}"


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
        raw=DATASETS.raw,
    params:
        preprocess=DATASETS.section("preprocess"),
        augment=DATASETS.section("augment"),
        settings=DATASETS.benchmark("loading"),
        marks=DATASETS.marks,
    shell:
        "python {resources.script:q} --index {input.index:q} --raw {resources.raw:q}"
        " --shards data/{wildcards.study:q}/shards --preprocess {params.preprocess:q}"
        " --augment {params.augment:q} --settings {params.settings:q}"
        " --marks {params.marks:q} --out measured/{wildcards.study:q} --log {log:q}"


# One training for each number format and seed; finished ones are kept until all are measured.
rule formats:
    input:
        shards="data/{study}/shards/meta.json",
        weights=RUNS.formats_weights,
    output:
        rows="measured/{study}/formats.csv",
        about="measured/{study}/formats.json",
    threads: RUNS.cpus
    resources:
        timed=ALONE,
        gpu=RUNS.gpus,
    params:
        plan=RUNS.formats_plan,
        seeds=RUNS.seed_options,
        settings=DATASETS.benchmark("formats"),
        marks=DATASETS.marks,
    shell:
        "python {resources.script:q} --plan {params.plan:q} {params.seeds:q}"
        " --settings {params.settings:q} --shards data/{wildcards.study:q}/shards"
        " --marks {params.marks:q} --out measured/{wildcards.study:q} --log {log:q}"
