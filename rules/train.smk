# One replicate: its plan as a file, then the training that the plan describes.


rule plan:
    output:
        "runs/{study}/{run}/seed{seed}/spec.json",
    log:
        "logs/{study}/{run}/seed{seed}.plan.log",
    localrule: True
    params:
        text=lambda w: GRAPH.plan(w.study, w.run, w.seed).model_dump_json(),
        script=GRAPH.script("write_json.py"),
        code=GRAPH.code("write_json.py"),
    shell:
        "python {params.script} plan {params.text:q} --out {output} 2> {log}"


# Checkpoints stay undeclared below the run's folder, so that a restarted job finds them and goes on.
rule train:
    input:
        spec="runs/{study}/{run}/seed{seed}/spec.json",
        shards=lambda w: f"{GRAPH.shards(w.study, w.run)}/meta.json",
    output:
        history="runs/{study}/{run}/seed{seed}/history.csv",
        timing="runs/{study}/{run}/seed{seed}/timing.json",
        predictions="runs/{study}/{run}/seed{seed}/predictions.parquet",
        model="runs/{study}/{run}/seed{seed}/model.safetensors",
        environment="runs/{study}/{run}/seed{seed}/environment.json",
    log:
        "logs/{study}/{run}/seed{seed}.train.log",
    benchmark:
        "benchmarks/{study}/{run}/seed{seed}.train.tsv"
    # a training over several nodes enters the image on each of them
    container:
        lambda w: None if GRAPH.several_nodes(w.study, w.run) else IMAGE
    threads: lambda w: GRAPH.cpus(w.study, w.run)
    resources:
        timed=lambda w: GRAPH.timed(w.study, w.run),
        gpu=lambda w: GRAPH.gpus(w.study, w.run),
        start=lambda w: SLURM.start(w.study, w.run),
    params:
        shards=lambda w: GRAPH.shards(w.study, w.run),
        script=GRAPH.script("train.py"),
        code=GRAPH.code("train.py"),
    shell:
        "{resources.start}python {params.script} --spec {input.spec} --shards {params.shards}"
        " --out runs/{wildcards.study}/{wildcards.run}/seed{wildcards.seed} --log {log}"
