# A run's replicates to its result folder; `snakemake results` for all configured runs.


rule evaluate:
    input:
        index=RUNS.index,
        replicates=RUNS.replicate_files,
        shards=RUNS.shards_file,
    output:
        report(
            directory("results/{study}/{run}"),
            patterns=["{file}.md"],
            caption="../report/result.rst",
            category=REPORT.headings.category,
            subcategory=partial(REPORT.headings.subcategory, "Model cards"),
            labels=REPORT.headings.run_labels,
        ),
    params:
        folders=RUNS.replicates,
        shards=RUNS.shards,
        gradcam=RUNS.gradcam_option,
        settings=DATASETS.section("evaluate"),
        title=DATASETS.title,
        kind=DATASETS.kind,
        titles=DATASETS.section("class_titles"),
    shell:
        "python {resources.script:q} {params.folders:q} --index {input.index:q}"
        " --settings {params.settings:q} --shards {params.shards:q} {params.gradcam:q}"
        " --title {params.title:q} --kind {params.kind:q} --titles {params.titles:q}"
        " --out {output:q} --log {log:q}"


# A trained run on images of another origin; nothing is fitted again.
rule external:
    input:
        result=DATASETS.external_result,
        index="data/{study}/index.parquet",
        audit="data/{study}/audit.json",
        training=DATASETS.external_training,
    output:
        directory("external/{study}/{run}"),
    threads: workflow.cores or 1
    resources:
        raw=DATASETS.raw,
    params:
        title=DATASETS.section("title"),
        synthetic=DATASETS.synthetic_option,
        settings=DATASETS.section("evaluate"),
    shell:
        "python {resources.script:q} {input.result:q} --index {input.index:q}"
        " --raw {resources.raw:q}"
        " --audit {input.audit:q} --training {input.training:q} --title {params.title:q}"
        " {params.synthetic:q} --settings {params.settings:q} --out {output:q} --log {log:q}"


# Logistic regression on small images of the same split: what a network has to beat.
rule reference:
    input:
        index="data/{study}/index.parquet",
        shards="data/{study}/shards/meta.json",
    output:
        scores="measured/{study}/reference.json",
        resamples="measured/{study}/reference.csv",
    shell:
        "python {resources.script:q} {wildcards.study:q} --index {input.index:q}"
        " --shards data/{wildcards.study:q}/shards --out measured/{wildcards.study:q} --log {log:q}"


rule results:
    input:
        GRAPH.results(),
        GRAPH.references(),
