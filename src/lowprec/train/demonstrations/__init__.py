"""What goes wrong in 16 bits: ten demonstrations, each a function that measures it.

``python -m lowprec.train.demonstrations`` runs them all, or those that are named.
"""

from lowprec.train.demonstrations.demonstration import Demonstration as Demonstration
from lowprec.train.demonstrations.precision import precision_floor as precision_floor
from lowprec.train.demonstrations.precision import stalling_sums as stalling_sums
from lowprec.train.demonstrations.ranges import float16_adam as float16_adam
from lowprec.train.demonstrations.ranges import gradient_histogram as gradient_histogram
from lowprec.train.demonstrations.ranges import large_targets as large_targets
from lowprec.train.demonstrations.ranges import small_loss as small_loss
from lowprec.train.demonstrations.updates import beta_2 as beta_2
from lowprec.train.demonstrations.updates import lost_updates as lost_updates
from lowprec.train.demonstrations.updates import optimizers as optimizers
from lowprec.train.demonstrations.updates import weight_decay as weight_decay

DEMONSTRATIONS = {
    demonstration.__name__: demonstration
    for demonstration in (
        lost_updates,
        small_loss,
        float16_adam,
        large_targets,
        stalling_sums,
        precision_floor,
        beta_2,
        weight_decay,
        optimizers,
        gradient_histogram,
    )
}
"""All by name."""
