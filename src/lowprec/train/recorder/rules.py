"""The rules of advice: a threshold each, with its reason and its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lowprec.train.recorder import coverage, learning_causes, precision_causes, range_causes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lowprec.train.recorder.finding import Finding
    from lowprec.train.recorder.record import Record

_ORDER = ("red", "amber", "note")
_WITHOUT_ROUNDING = ("not finite", "no learning")


class Rule(NamedTuple):
    """When to say what, and why.

    name: What goes wrong, in a few words.
    threshold: From where on it is told.
    reason: Why there.
    source: Where this is known from.
    find: Returns the findings in a recorder.
    """

    name: str
    threshold: str
    reason: str
    source: str
    find: Callable[[Record], Iterable[Finding]]


RULES = (  # causes before their consequences: findings of one level stay in this order
    Rule(
        "starved moments",
        "more than 1 % of the first moments that are not zero have a second moment that is (a "
        "warning; a problem where this run ends worse than float32 or is not finite, and where "
        "epsilon is zero too)",
        "the square of a gradient leaves the range first, and the step becomes the first moment "
        "over epsilon: enormous",
        "squares halve the range in bits: float16 holds none of numbers below 2.4e-4",
        precision_causes.starved_moments,
    ),
    Rule(
        "precision of the outputs",
        "the rounding of the outputs is more than half of the error that is left (a problem)",
        "nothing that is done to weights or gradients makes outputs finer than their format",
        "the spacing of bfloat16 between 128 and 256 is 1: its rounding alone has an RMS of 0.29",
        precision_causes.output_precision,
    ),
    Rule(
        "lost updates",
        "more than 80 % of the updates, of all or of one tensor in a tenth of the run, leave the "
        "weight as it was (a problem; of all more than half: a warning), and the run ends worse "
        "than float32's; without a float32 run beside it, a note",
        "an update of less than half a spacing is lost to nearest; but 77 % alone was harmless in "
        "a measured case, for the others were rounded up",
        "Micikevicius et al. (2018), section 3.1; Zamirai et al. (2020), Revisiting BFloat16 "
        "Training",
        precision_causes.lost_updates,
    ),
    Rule(
        "noise beside the deviation",
        "in more than half of the units of a layer rounding errors exceed half the deviation over "
        "the samples (a warning; a problem where the run ends worse than float32's)",
        "an offset makes the spacing of a format larger than what varies, though beside the "
        "tensor's norm the error is small",
        "Higham (2002), section 1.9",
        precision_causes.noisy_units,
    ),
    Rule(
        "one unit sets the scale",
        "under tensor scales, in more than a quarter of the units of a layer rounding errors "
        "exceed half the deviation, and one unit is 64 times as large as the median (a warning; a "
        "problem where the run ends worse than float32's)",
        "one power of two for the whole tensor leaves small units a few values, or zero",
        "Dettmers et al. (2022), LLM.int8(), on features that are outliers",
        precision_causes.drowned_units,
    ),
    Rule(
        "new zeros",
        "more than 1 % of the nonzero numbers become zero (a warning), or 20 % (a problem), and "
        "with them more than 10 % of the tensor's norm; a kernel's gradients are all zero, though "
        "neither what the layer reads nor what reaches it from behind is (a problem)",
        "what underflows teaches nothing; zeros that carry no weight, such as most of a softmax's "
        "gradients, are harmless",
        "Micikevicius et al. (2018), Mixed Precision Training, figures 2 and 3",
        range_causes.new_zeros,
    ),
    Rule(
        "long sums",
        "a sum has more terms than 2 to the precision of its accumulator (a warning, four times "
        "as many: a problem)",
        "a running sum so long stalls: terms are less than half its spacing",
        "Higham (2002), section 4.2; Wang et al. (2018), Training with 8-bit Floating Point "
        "Numbers",
        precision_causes.long_sums,
    ),
    Rule(
        "headroom",
        "the largest number comes within 2 bits of the format's maximum (a warning)",
        "sums and later steps are easily four times as large",
        "Micikevicius et al. (2018), section 3.2, on choosing a scale",
        range_causes.headroom,
    ),
    Rule(
        "not finite",
        "a weight is infinite or NaN (a problem); more than 5 % of the steps, and more than 15, "
        "are skipped (a warning)",
        "from such a weight nothing returns; skipped steps teach nothing; where there is no "
        "reference, what grew 256-fold is taken for a training that diverges",
        "IEEE 754-2019, section 6; Micikevicius et al. (2018), section 3.2",
        range_causes.not_finite,
    ),
    Rule(
        "skipped steps",
        "in a training elsewhere that was watched: more than 5 % of the steps are skipped, or one "
        "of the last 100 (a problem; otherwise a note)",
        "skipped steps teach nothing; a scaler that finds its level skips a few at first",
        "Micikevicius et al. (2018), section 3.2; PyTorch's documentation of GradScaler",
        coverage.skipped,
    ),
    Rule(
        "targets",
        "the largest target exceeds the root of the format's maximum (a warning)",
        "its squared error overflows where the loss is computed in this format, while the "
        "gradients, which are linear in it, stay finite",
        "the maximum of float16 is 65504, its root 256",
        range_causes.targets,
    ),
    Rule(
        "no learning",
        "float32 fails as well (a problem), and activations of a layer are all zero, gradients are "
        "clipped below a thousandth of their size, a loss grew tenfold, or the first layer's "
        "gradients are less than a thousandth of the last layer's",
        "what float32 cannot do either is no matter of rounding",
        "Glorot and Bengio (2010), on units that saturate; Pascanu et al. (2013), on clipping",
        learning_causes.no_learning,
    ),
    Rule(
        "offset",
        "a feature's mean exceeds its deviation by more than 2 to the precision: 256 in bfloat16 "
        "(a warning)",
        "rounding to so few bits leaves nothing of the deviation",
        "Higham (2002), Accuracy and Stability of Numerical Algorithms, section 1.9",
        precision_causes.offset,
    ),
    Rule(
        "colliding inputs",
        "a feature holds whole numbers of which less than nine tenths of the distinct values are "
        "left (a note; a problem where the run ends worse than float32's)",
        "positions, indices and time stamps mean something to the last digit",
        "integers beyond 2 to the precision are rounded: 256 in bfloat16, 2048 in float16",
        precision_causes.colliding_inputs,
    ),
    Rule(
        "numbers of the optimizer",
        "epsilon rounds to 0, beta to 1, or 1 - rate · decay to 1, in the format of the state or "
        "the weights (a warning where the run shows that it costs; a problem where averages that "
        "never decay come with an end worse than float32's; else a note)",
        "division by zero; averages that never decay; weights that never do",
        "PyTorch's documentation of torch.optim.Adam on eps; Zamirai et al. (2020)",
        precision_causes.optimizer_numbers,
    ),
    Rule(
        "stalled state",
        "more than half of the changes of a sum or average of the optimizer are lost in a tenth of "
        "the run, or a quarter where the run ends worse than float32's (then a problem, else a "
        "note)",
        "a sum that has grown swallows what is added, and an average what it should forget",
        "Higham (2002), section 4.2; Zamirai et al. (2020)",
        precision_causes.stalled_state,
    ),
)


def findings(recorder: Record) -> list[Finding]:
    """Return what the rules find, the worst first."""
    found = [finding for rule in RULES for finding in rule.find(recorder)]
    if recorder.reference_account is not None:
        outcome = recorder.outcome
        if not outcome.is_red:  # whatever rounding did, it did no harm
            return []
        if outcome.kind == "float32 too":  # then rounding is not to blame
            found = [finding for finding in found if finding.rule in _WITHOUT_ROUNDING]
    return sorted(found, key=lambda finding: _ORDER.index(finding.level))
