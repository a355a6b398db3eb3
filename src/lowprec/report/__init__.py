"""The page of `lowprec report`: its data sets, figures, sections and measurements.

`page` puts it together from `sections`; `throughput` and `training` measure what it tells.
"""
