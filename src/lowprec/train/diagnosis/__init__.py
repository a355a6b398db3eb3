"""Diagnosis: the cause of a training's failure found by experiment, and cures that were tried.

`diagnose` orders the experiments, which `bench` runs: `parts` of the policy made wide, `places`
found by bisection, `cures` tried, and `user_code` watched where the cause is not precision.
"""

from lowprec.train.diagnosis.diagnose import diagnose as diagnose
from lowprec.train.diagnosis.diagnosis import Cure as Cure
from lowprec.train.diagnosis.diagnosis import Diagnosis as Diagnosis
from lowprec.train.diagnosis.diagnosis import Experiment as Experiment
