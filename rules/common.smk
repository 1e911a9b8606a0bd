wildcard_constraints:
    study=r"[^/]+",
    run=r"[^/]+",
    replicate=r"seed\d+(_fold\d+)?",


# The configuration after overlay and changes, as a file for readers of the results. The report
# shows studies and variants in its order.
rule config:
    output:
        "config.resolved.json",
    localrule: True
    # it writes a small file, on a login node too, which need not start the image for it
    container:
        SLURM.no_image
    resources:
        script=GRAPH.script("write_json.py"),
    params:
        text=GRAPH.resolved,
    shell:
        "python {resources.script:q} {params.text:q} --keep-order --out {output:q} 2> {log:q}"
