"""The flight recorder: what rounding does to each tensor of a training, and what to do then."""

from lowprec.train.recorder.recorder import Recorder as Recorder
