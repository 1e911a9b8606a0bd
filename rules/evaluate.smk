# A run's replicates to its result folder; `snakemake results` for all configured runs.


rule evaluate:
    input:
        index="data/{study}/index.parquet",
        replicates=lambda w: expand(
            "{folder}/{file}",
            folder=GRAPH.replicates(w.study, w.run),
            file=[
                "spec.json",
                "history.csv",
                "timing.json",
                "predictions.parquet",
                "environment.json",
                "model.safetensors",
            ],
        ),
        shards=lambda w: f"{GRAPH.shards(w.study, w.run)}/meta.json",
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
        folders=lambda w: GRAPH.replicates(w.study, w.run),
        shards=lambda w: GRAPH.shards(w.study, w.run),
        gradcam=lambda w: "--gradcam" if GRAPH.explained(w.study, w.run) else "",
        settings=lambda w: GRAPH.section(w.study, "evaluate"),
        script=GRAPH.script("evaluate.py"),
        code=GRAPH.code("evaluate.py"),
    shell:
        "python {params.script} {params.folders} --index {input.index} --settings {params.settings:q}"
        " --shards {params.shards} {params.gradcam} --out {output} --log {log}"


rule results:
    input:
        GRAPH.results(),
