"""Running a training: one step, the loop over epochs, prediction, and the history that is kept.

`outcome` alone judges what became of a run.
"""
