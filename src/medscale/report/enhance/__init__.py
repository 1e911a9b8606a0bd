"""The chapter enhance: preprocessing images with several Dask workers."""
