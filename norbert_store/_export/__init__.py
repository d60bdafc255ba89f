"""A data set's tracks into a store: a plan, workers, and the run itself."""
