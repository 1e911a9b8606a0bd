# One replicate: its plan as a file, then the training that the plan describes.


rule plan:
    output:
        "runs/{study}/{run}/{replicate}/spec.json",
    localrule: True
    # it writes a small file, on a login node too, which need not start the image for it
    container:
        SLURM.no_image
    resources:
        script=GRAPH.script("write_json.py"),
    params:
        text=RUNS.spec,
    shell:
        "python {resources.script:q} {params.text:q} --out {output:q} 2> {log:q}"


# Checkpoints below the run's folder are not declared, so that a restarted job finds them.
rule train:
    input:
        spec="runs/{study}/{run}/{replicate}/spec.json",
        shards=RUNS.shards_file,
        weights=RUNS.weights,
    output:
        history="runs/{study}/{run}/{replicate}/history.csv",
        timing="runs/{study}/{run}/{replicate}/timing.json",
        predictions="runs/{study}/{run}/{replicate}/predictions.parquet",
        model="runs/{study}/{run}/{replicate}/model.safetensors",
        environment="runs/{study}/{run}/{replicate}/environment.json",
    # a training over several nodes enters the image on each of them
    container:
        SLURM.train_image
    threads: RUNS.cpus
    resources:
        timed=RUNS.timed,
        gpu=RUNS.gpus,
        start=SLURM.start,
        script=RUNS.train_script,
    params:
        shards=RUNS.shards,
        code=RUNS.train_code,
    shell:
        "{resources.start}python {resources.script:q} --spec {input.spec:q}"
        " --shards {params.shards:q}"
        " --out runs/{wildcards.study:q}/{wildcards.run:q}/{wildcards.replicate:q} --log {log:q}"
