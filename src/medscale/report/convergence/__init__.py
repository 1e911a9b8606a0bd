"""The chapter convergence: epochs and seconds to a target, against the baseline's."""
