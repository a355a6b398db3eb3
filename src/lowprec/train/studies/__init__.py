"""Studies over many trainings: policies compared, seeds, learning rates, searches."""
