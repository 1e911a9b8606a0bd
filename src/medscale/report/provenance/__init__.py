"""The chapter provenance: the code and the machines that made all results."""
