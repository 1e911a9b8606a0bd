# A rule for each chapter of the report (src/medscale/report/<chapter>): figures, tables, facts.

for chapter in REPORT.chapters:

    rule:
        name:
            f"{chapter.name}_report"
        input:
            partial(REPORT.inputs, chapter),
        output:
            REPORT.outputs(chapter),
        resources:
            script=GRAPH.script("chapter.py"),
        params:
            chapter=chapter.name,
            study=REPORT.study_option,
            arguments=partial(REPORT.arguments, chapter),
            code=REPORT.code(chapter),
        shell:
            "python {resources.script:q} {params.chapter:q} {params.study:q}"
            " --arguments {params.arguments:q} --log {log:q}"


rule figures:
    input:
        REPORT.figures(),
