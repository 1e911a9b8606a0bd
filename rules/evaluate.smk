# A run's replicates to its result folder; `snakemake results` for all configured runs.


rule evaluate:
    input:
        index="data/{study}/index.parquet",
        replicates=lambda w: expand(
            "{folder}/{file}",
            folder=STUDY.replicates(w.study, w.run),
            file=[
                "spec.json",
                "history.csv",
                "timing.json",
                "predictions.parquet",
                "environment.json",
            ],
        ),
        # where images are drawn with their boxes
        shards=lambda w: [
            f"{folder}/meta.json" for folder in STUDY.drawn(w.study, w.run)
        ],
    output:
        report(
            directory("results/{study}/{run}"),
            patterns=["{shows}.pdf", "{shows}.md"],
            caption="../report/result.rst",
            category="{study}",
            subcategory="results",
            labels={"run": "{run}", "shows": "{shows}"},
        ),
    log:
        "logs/{study}/{run}/evaluate.log",
    benchmark:
        "benchmarks/{study}/{run}/evaluate.tsv"
    params:
        folders=lambda w: STUDY.replicates(w.study, w.run),
        shards=lambda w: [
            f"--shards {folder}" for folder in STUDY.drawn(w.study, w.run)
        ],
        script=STUDY.script("evaluate.py"),
        code=STUDY.code("evaluate.py"),
    shell:
        "python {params.script} {params.folders} --index {input.index} {params.shards} --out {output} --log {log}"


rule results:
    input:
        STUDY.results(),
