rule paper:
    input:
        "config.resolved.json",
