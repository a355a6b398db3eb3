"""Diagnosis: the cause of a training's failure found by experiment, and cures that were tried."""

from lowprec.train.diagnosis.diagnose import diagnose as diagnose
from lowprec.train.diagnosis.diagnosis import Cure as Cure
from lowprec.train.diagnosis.diagnosis import Diagnosis as Diagnosis
from lowprec.train.diagnosis.diagnosis import Experiment as Experiment
