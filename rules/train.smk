# One replicate: its plan as a file, then the training that the plan describes.


rule plan:
    output:
        "runs/{study}/{run}/seed{seed}/spec.json",
    localrule: True
    params:
        text=RUNS.spec,
        script=GRAPH.script("write_json.py"),
    shell:
        "python {params.script} {params.text:q} --out {output} 2> {log}"


# Checkpoints below the run's folder are not declared, so that a restarted job finds them.
rule train:
    input:
        spec="runs/{study}/{run}/seed{seed}/spec.json",
        shards=RUNS.shards_file,
    output:
        history="runs/{study}/{run}/seed{seed}/history.csv",
        timing="runs/{study}/{run}/seed{seed}/timing.json",
        predictions="runs/{study}/{run}/seed{seed}/predictions.parquet",
        model="runs/{study}/{run}/seed{seed}/model.safetensors",
        environment="runs/{study}/{run}/seed{seed}/environment.json",
    # a training over several nodes enters the image on each of them
    container:
        SLURM.train_image
    threads: RUNS.cpus
    resources:
        timed=RUNS.timed,
        gpu=RUNS.gpus,
        start=SLURM.start,
    params:
        shards=RUNS.shards,
        script=RUNS.train_script,
        code=RUNS.train_code,
    shell:
        "{resources.start}python {params.script} --spec {input.spec} --shards {params.shards}"
        " --out runs/{wildcards.study}/{wildcards.run}/seed{wildcards.seed} --log {log}"
