"""Diagnosis: the cause of a training's failure found by experiment, and cures that were tried.

`search` orders the experiments, which `bench` runs: `parts` of the policy made wide, `places` found
by bisection, `user_code` watched; `curing` tries `cures`, and `sentences` says what was found.
"""

from lowprec.train.diagnosis.diagnose import diagnose as diagnose
from lowprec.train.diagnosis.diagnosis import Cure as Cure
from lowprec.train.diagnosis.diagnosis import Diagnosis as Diagnosis
from lowprec.train.diagnosis.diagnosis import Experiment as Experiment
