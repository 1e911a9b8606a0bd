"""The chapter sweep: the learning rate of each batch size, chosen by validation images."""
