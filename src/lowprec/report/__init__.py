"""The page of `lowprec report`: its data sets, figures, sections and measurements."""
