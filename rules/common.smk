wildcard_constraints:
    study=r"[^/]+",
    run=r"[^/]+",
    seed=r"\d+",


# The configuration after overlay and changes, as a file that reports read.
rule config:
    output:
        "config.resolved.json",
    log:
        "logs/config.log",
    localrule: True
    params:
        text=STUDY.config.model_dump_json(),
        script=STUDY.script("write_json.py"),
        code=STUDY.code("write_json.py"),
    shell:
        "python {params.script} config {params.text:q} --out {output} 2> {log}"
