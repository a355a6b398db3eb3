"""The flight recorder: what rounding does to each tensor of a training, and what to do then.

`rules` lists what is told, from which threshold and why; how it is found stands in
`precision_causes`, `range_causes` and `learning_causes`.
"""

from lowprec.train.recorder.recorder import Recorder as Recorder
