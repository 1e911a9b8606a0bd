"""The chapter checklists: the items of reporting checklists, each with its answer."""
