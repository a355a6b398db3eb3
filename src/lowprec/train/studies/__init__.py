"""Studies over many trainings: policies compared, seeds, learning rates, searches.

`comparison` trains under each policy, `rates` finds a learning rate, `searching` searches a space;
`runs` hands trainings to executors, and `verdicts` says what they show.
"""
