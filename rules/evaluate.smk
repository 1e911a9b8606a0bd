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
        # where images are shown: boxes of a detection run, Grad-CAM of others
        shards=lambda w: [
            f"{folder}/meta.json" for folder in STUDY.drawn(w.study, w.run)
        ],
        weights=lambda w: STUDY.explained(w.study, w.run),
    output:
        directory("results/{study}/{run}"),
    log:
        "logs/{study}/{run}/evaluate.log",
    benchmark:
        "benchmarks/{study}/{run}/evaluate.tsv"
    params:
        folders=lambda w: STUDY.replicates(w.study, w.run),
        shards=lambda w: [
            f"--shards {folder}" for folder in STUDY.drawn(w.study, w.run)
        ],
        detect=lambda w: "--detect" if STUDY.plan(w.study, w.run).detect else "",
        settings=lambda w: STUDY.section(w.study, "evaluate"),
        script=STUDY.script("evaluate.py"),
        code=STUDY.code("evaluate.py"),
    shell:
        "python {params.script} {params.folders} --index {input.index} --settings {params.settings:q}"
        " {params.shards} {params.detect} --out {output} --log {log}"


rule results:
    input:
        STUDY.results(),
