"""The flight recorder: what rounding does to every tensor of a training, and what to do about it."""

from lowprec.train.recorder.recorder import Recorder as Recorder
