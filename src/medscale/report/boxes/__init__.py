"""The chapter boxes: test images with the boxes of the runs of a study that localize."""
