"""One module for each dataset kind; each defines ``KIND`` (see ``medscale.data.kind``)."""
