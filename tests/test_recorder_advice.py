"""What the recorder advises holds: scales, predictions, rules; healthy runs are left alone."""

import dataclasses
import html
import re

import numpy as np
import pytest

from lowprec import train
from lowprec.formats import float16
from lowprec.train.demonstrations.demonstration import network, recorded
from lowprec.train.recorder.forecast import forecast
from lowprec.train.recorder.rules import RULES
from lowprec.train.recorder.starts import STARTS, record_starts
from lowprec.train.recorder.tracks import Track
from lowprec.train.recorder.views import graded

XENT = "sparse_categorical_crossentropy"


def digits():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    return train.data.digits()


def warnings_of(recorder):
    return [finding for finding in recorder.findings if finding.level != "note"]


# Healthy runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [train.Adam(1e-3), train.SGD(0.1)], ids=["Adam", "SGD"])
@pytest.mark.parametrize(
    "policy",
    ["float32", "mixed_bfloat16", "mixed_float16", "compute=float16", "mixed_float8"],
)
def test_a_healthy_run_gets_no_warning(policy, optimizer):
    data = digits()
    how = {"loss": XENT, "optimizer": optimizer, "epochs": 10}
    reference, _ = recorded(network(data, [100]), data, policy="float32", **how)
    _, recorder = recorded(network(data, [100]), data, policy=policy, reference=reference, **how)
    assert warnings_of(recorder) == []
    assert "Nothing to worry about" in recorder.verdict[0]


def test_digits_in_plain_float16_are_not_told_to_scale():
    """Of the gradients of the outputs many vanish, yet they carry nothing."""
    data = digits()
    _, recorder = recorded(
        network(data, [100, 100]),
        data,
        policy="compute=float16",
        loss=XENT,
        optimizer=train.Adam(1e-3),
        epochs=20,
    )
    assert recorder.track("activation_gradient", "2").rows[-1].new_zero_rate > 0.2
    assert not any("scale between" in sentence for sentence in recorder.verdict)
    assert not recorder.loss_scale().is_needed


def test_lost_updates_alone_are_no_warning():
    """Without a float32 run beside them nobody knows whether they cost anything."""
    recorder = train.Recorder(policy="bfloat16")
    recorder.observe(0, "update", "w", np.full(100, 1e-6), parameter=np.ones(100))
    (finding,) = recorder.findings
    assert (finding.level, finding.rule) == ("note", "lost updates")


# Loss scales -------------------------------------------------------------------------------------


def test_the_recommended_scale_is_the_largest_with_two_bits_to_spare():
    rng = np.random.default_rng(0)
    recorder = train.Recorder(policy="compute=float16")
    for step in range(5):
        gradients = rng.standard_normal(1000) * 1e-6
        recorder.observe(step, "weight_gradient", "w", gradients)
        recorder.observe(step, "activation_gradient", "a", gradients / 8)
    largest = recorder.track("weight_gradient", "w").whole["max_abs"]
    advice = recorder.loss_scale()
    assert largest * advice.recommended <= float16.max / 4
    assert largest * advice.recommended * 2 > float16.max / 4
    assert largest * advice.high <= float16.max < largest * advice.high * 2
    assert advice.is_needed
    assert advice.low < advice.recommended < advice.high


def test_every_scale_of_the_interval_trains_and_one_far_outside_does_not():
    from lowprec.train.demonstrations.ranges import small_crossentropy

    data = digits()
    how = {"loss": small_crossentropy, "optimizer": train.Adam(1e-3, epsilon=1e-12), "epochs": 6}
    model = network(data, [100, 100])
    _, recorder = recorded(model, data, policy="float32", **how)
    advice = recorder.loss_scale("float16")

    def accuracy(scale):
        history, _ = recorded(model, data, policy=f"compute=float16,loss_scale={scale}", **how)
        return history.history["val_accuracy"][-1]

    for scale in (advice.low, advice.recommended):
        assert accuracy(scale) > 0.9
    assert accuracy(1.0) < 0.5
    assert accuracy(2.0**20 * advice.high) < 0.5


def test_gradients_of_too_wide_a_range_have_no_scale():
    recorder = train.Recorder(policy="compute=float8_e4m3fn")
    recorder.observe(0, "weight_gradient", "large", [1e6] * 100)
    recorder.observe(0, "weight_gradient", "small", [1e-6] * 100)
    assert not recorder.loss_scale().works
    assert "no loss scale keeps" in str(recorder.loss_scale())


def test_the_verdict_on_gradients_that_vanish_prints_the_advice_itself():
    from lowprec.train.demonstrations.ranges import small_crossentropy

    data = digits()
    how = {"loss": small_crossentropy, "optimizer": train.Adam(1e-3, epsilon=1e-12), "epochs": 2}
    _, recorder = recorded(network(data, [32]), data, policy="compute=float16", **how)
    told = [finding.cure for finding in recorder.findings if finding.rule == "new zeros"]
    assert str(recorder.loss_scale()) in told
    assert recorder.loss_scale().is_needed


@pytest.mark.parametrize("end", ["low", "high"])
def test_every_recorded_step_keeps_its_gradients_at_both_ends_of_the_interval(end):
    """Each step by itself: large gradients at first do not speak for small ones at the end."""
    from lowprec import round_to

    rng = np.random.default_rng(1)
    steps = [(rng.standard_normal(500) * 2.0**-k).astype(np.float32) for k in range(14, 30)]
    recorder = train.Recorder(1, policy="compute=float16")
    for step, gradient in enumerate(steps):
        recorder.observe(step, "weight_gradient", "w", gradient)
    advice = recorder.loss_scale()
    assert advice.is_needed
    assert advice.works

    def keeps(scale):
        rounded = [round_to(g * np.float32(scale), "float16") for g in steps]
        noise = [np.linalg.norm(y - g * scale) / np.linalg.norm(g * scale)
                 for g, y in zip(steps, rounded, strict=True)]  # fmt: skip
        finite = all(np.isfinite(y).all() for y in rounded)
        zeros = [np.mean(y == 0) for y in rounded]
        return finite and all(z <= 0.01 or n <= 0.0101 for z, n in zip(zeros, noise, strict=True))

    scale = getattr(advice, end)
    assert keeps(scale)
    assert not keeps(scale / 4 if end == "low" else scale * 2)


def test_steps_that_no_one_scale_serves_are_told_to_take_a_dynamic_one():
    recorder = train.Recorder(1, policy="compute=float16")
    for step, size in enumerate([1e4] * 4 + [1e-9] * 4):
        recorder.observe(step, "weight_gradient", "w", [size, -size / 2])
    advice = recorder.loss_scale()
    assert advice.is_needed
    assert not advice.works
    assert advice.follows
    assert "loss_scale='dynamic'" in str(advice)


def test_a_run_that_failed_and_steps_that_were_not_recorded_are_both_told():
    recorder = train.Recorder(policy="compute=float16")
    recorder.observe(0, "weight_gradient", "w", [1e-3], loss=1.0)
    recorder.observe(20, "weight_gradient", "w", [1e-3], loss=float("nan"))
    words = str(recorder.loss_scale())
    assert "this run failed" in words
    assert "were" in words or "was recorded" in words


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float32", "compute=float16"])
@pytest.mark.parametrize("largest", [1.0, 1e-3, 2.0**-100])
def test_every_advised_scale_is_a_loss_scale(policy, largest):
    recorder = train.Recorder(policy=policy)
    recorder.observe(0, "weight_gradient", "w", np.float32([largest, -largest / 3]))
    advice, fmt = recorder.loss_scale(), recorder.policy.formats["gradients"]
    for scale in (advice.low, advice.high, advice.recommended):
        assert train.LossScale.static(scale).value == scale
    assert advice.low <= advice.recommended <= advice.high
    assert advice.recommended * largest <= fmt.max / 4
    if not advice.is_needed:
        assert advice.recommended == 1
    else:
        assert advice.recommended * largest * 2 > fmt.max / 4


@pytest.mark.parametrize("gradients", [[0.0, 0.0], [np.inf, -np.inf], [np.nan, 0.0]], ids=str)
def test_without_a_usable_gradient_there_is_no_advice(gradients):
    recorder = train.Recorder(policy="compute=float16")
    recorder.observe(0, "weight_gradient", "w", gradients)
    with pytest.raises(ValueError, match="no gradient was recorded that is"):
        recorder.loss_scale()


def test_the_advice_says_what_it_does_not_know():
    recorder = train.Recorder(policy="compute=float16")
    recorder.observe(0, "weight_gradient", "w", [1.0])
    assert "every recorded step allows" in str(recorder.loss_scale())
    recorder.observe(30, "weight_gradient", "w", [1.0])
    assert "one step in 16 was recorded" in str(recorder.loss_scale())


def test_without_gradients_there_is_no_advice():
    with pytest.raises(ValueError, match="no gradient was recorded"):
        train.Recorder().loss_scale("float16")


# Forecasts and what-if ---------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float8_e5m2", "float8_e4m3fn"])
def test_a_forecast_from_exponents_is_what_rounding_then_does(fmt):
    from lowprec import round_to
    from lowprec.formats import get_format

    rng = np.random.default_rng(0)
    x = (rng.standard_normal(20000) * np.exp2(rng.integers(-20, 3, 20000))).astype(np.float32)
    kind = get_format(fmt)
    track = Track("weight", "w", kind)
    track.add(0, x, round_to(x, kind))
    told, whole = forecast(track.whole, kind), track.whole
    assert told.new_zeros == pytest.approx(whole.new_zero_rate, abs=1e-4)
    assert told.subnormals == pytest.approx(whole.subnormal_rate, abs=0.02)
    assert 20 * np.log10(1 / told.noise) == pytest.approx(whole.sqnr_db, abs=1.0)


POLICIES = ["mixed_float16", "mixed_bfloat16", "compute=float16", "bfloat16", "mixed_float8"]
CLEAR = 0.1
"""Losses that differ by less are the noise of a seed."""


def cases():
    from lowprec.train.demonstrations.ranges import small_crossentropy

    data, quadratic = digits(), train.data.quadratic().scaled("standard")
    x = np.random.default_rng(0).uniform(0, 200, (400, 1))
    line = train.Dataset(x, x + 10, x, x + 10).scaled("standard")
    slow = {"loss": XENT, "optimizer": train.SGD(0.01), "epochs": 12}
    adam = {"loss": XENT, "optimizer": train.Adam(1e-3), "epochs": 12}
    tiny = {"loss": small_crossentropy, "optimizer": train.Adam(epsilon=1e-12), "epochs": 6}
    straight = {"loss": "mse", "optimizer": train.SGD(0.2), "epochs": 40}
    curved = {"loss": "mse", "optimizer": train.Adam(3e-3), "epochs": 25}
    return {
        "slow SGD": (network(data, [100]), data, slow),
        "Adam": (network(data, [100, 100]), data, adam),
        "small loss": (network(data, [100, 100]), data, tiny),
        "y = x + 10": (network(line, []), line, straight),
        "quadratic": (network(quadratic, [32]), quadratic, curved),
    }


def ranking_agrees(model, data, how):
    """Return whether no policy that trains clearly worse is predicted to do better."""
    base, recorder = recorded(model, data, policy="float32", **how)
    predicted = recorder.what_if(POLICIES)
    ends = {}
    for policy in POLICIES:
        loss = recorded(model, data, policy=policy, **how)[0].history["loss"][-1]
        rise = loss / base.history["loss"][-1] - 1
        ends[policy] = np.inf if np.isnan(rise) else rise
    return all(
        predicted[a].damage < predicted[b].damage
        for a in POLICIES
        for b in POLICIES
        if ends[b] > CLEAR + 2 * max(ends[a], 0)
    )


def test_predictions_rank_policies_as_training_does_in_four_cases_of_five():
    """It misses the quadratic: there bfloat16's updates vanish only near the end, where steps are
    small, and the prediction weighs steps by their size; it takes fp8's coarse sums for worse."""
    agreeing = {name for name, case in cases().items() if ranking_agrees(*case)}
    assert {"slow SGD", "Adam", "small loss", "y = x + 10"} <= agreeing


def test_only_a_float32_run_predicts():
    with pytest.raises(ValueError, match="record one in float32"):
        train.Recorder(policy="bfloat16").what_if()


def test_what_was_not_seen_is_unknown():
    recorder = train.Recorder()
    recorder.observe(0, "weight_gradient", "w", [1e-3, 1e-9])
    recorder.observe(0, "activation_gradient", "0", [1e-3, 1e-2])
    found = recorder.what_if(["float32", "gradients=bfloat16", "mixed_bfloat16", "float16"])
    assert np.isnan(found["mixed_bfloat16"].damage)
    assert found["mixed_bfloat16"].unknown == ("forward",)
    assert found["float16"].unknown == ("forward", "update", "state")
    assert found["gradients=bfloat16"].unknown == ()
    assert found["float32"].damage == 0
    assert found.ranking[:2] == ["float32", "gradients=bfloat16"]
    assert "unknown" in found.verdict
    assert "weights, activations" in found.sureness
    assert "1 of 1 steps" in found.sureness


def test_an_overflow_that_is_seen_fails_whatever_is_unknown():
    recorder = train.Recorder()
    recorder.observe(0, "weight", "w", [1e9])
    recorder.observe(0, "activation", "0", [1.0])
    found = recorder.what_if("float16")
    assert found["float16"].damage == np.inf


def test_pure_float16_adam_is_predicted_to_fail():
    data = digits()
    _, recorder = recorded(
        network(data, [32]), data, policy="float32", loss=XENT, optimizer="adam", epochs=1
    )
    found = recorder.what_if()
    assert found.ranking[0] == "float32"
    assert found.ranking[-1] == "float16"
    assert found["float16"].damage == np.inf
    assert found["float16"].worst == "state"
    assert "mixed_float16" in str(found)
    assert repr(found) == str(found)


# Rules and pages ---------------------------------------------------------------------------------


def test_every_rule_has_a_threshold_a_reason_and_a_source():
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert all((rule.threshold, rule.reason, rule.source))


def test_features_far_from_zero_are_told():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.standard_normal(64), 1e4 + rng.standard_normal(64)])
    data = train.Dataset(x, np.arange(64) % 2, x, np.arange(64) % 2)
    _, recorder = recorded(
        network(data, []), data, policy="mixed_bfloat16", loss=XENT, optimizer="adam", every=1
    )
    assert any("Feature 1 has a mean" in str(finding) for finding in warnings_of(recorder))


def decay_told(optimizer, epochs=5):
    data = digits()
    how = {"loss": XENT, "optimizer": optimizer, "epochs": epochs}
    _, recorder = recorded(network(data, [16]), data, policy="bfloat16", **how)
    return recorder, [sentence for sentence in recorder.verdict if "weight decay" in sentence]


def test_a_decay_that_vanishes_is_judged_by_the_rates_of_the_run():
    """A warm-up starts from 0, of which 1 - rate · decay is 1 without anything being lost."""
    warm_up = train.schedules.WarmUp(1e-3, steps=100)
    recorder, told = decay_told(train.AdamW(warm_up, weight_decay=0.1))
    share = 1 - np.prod([1 - 0.1 * warm_up(step) for step in range(225)])
    assert f"{100 * share:.1f} %" in told[0]
    assert "1 - rate · decay = 0.9999 " in told[0]
    assert "learning rate up to 0.001" in str(recorder)
    assert decay_told(train.AdamW(train.schedules.WarmUp(0.1, steps=50), weight_decay=0.1))[1] == []


def test_a_penalty_that_is_divided_or_gathered_does_not_vanish_as_a_factor_does():
    assert decay_told(train.SGD(1e-3, weight_decay=0.1))[1]
    for optimizer in (train.Adam(1e-3, weight_decay=0.1), train.Momentum(1e-3, weight_decay=0.1)):
        assert decay_told(optimizer)[1] == []


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (train.Adam(beta_1=0.999, beta_2=0.9), "beta_1=0.999 is 1 in bfloat16"),
        (train.SGD(0.01, momentum=0.999), "momentum=0.999 is 1 in bfloat16"),
        (train.AdaMax(), "of the changes of infinity norms were lost"),
        (train.RMSProp(rho=0.999), "rho=0.999 is 1 in bfloat16"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_every_number_by_which_state_decays_is_held_against_its_format(optimizer, words):
    recorder, _ = decay_told(optimizer, epochs=1)
    (told,) = (sentence for sentence in recorder.verdict if "is 1 in bfloat16" in sentence)
    assert words in told
    assert "0.0 % of the changes" not in told


def test_overflow_is_traced_to_the_first_tensor():
    data = digits()
    start = network(data, [16, 16]).init(np.random.default_rng(0))
    start["1/kernel"] *= 1e6
    _, recorder = recorded(
        network(data, [16, 16]),
        data,
        policy="compute=float16",
        loss=XENT,
        optimizer="sgd",
        params=start,
        epochs=1,
    )
    (event,) = recorder.events
    assert (event.step, event.kind, event.name) == (0, "weight", "1/kernel")
    assert np.isfinite(event.value)
    assert any(
        "Dense 2's weights (1/kernel) stopped being finite at step 0" in s for s in recorder.verdict
    )


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "compute=float16"])
def test_a_training_that_diverges_in_float32_too_does_not_blame_the_format(policy):
    data = train.data.quadratic().scaled("standard")
    how = {"loss": "mse", "optimizer": train.SGD(10.0), "epochs": 3}
    reference, _ = recorded(network(data, [16]), data, policy="float32", **how)
    _, recorder = recorded(network(data, [16]), data, policy=policy, reference=reference, **how)
    red = [finding for finding in recorder.findings if finding.level == "red"]
    assert any("stopped being finite" in finding.text for finding in red)
    assert all("lower the learning rate" in finding.cure for finding in red)


@pytest.mark.parametrize("policy", ["mixed_float16", "compute=float16"])
def test_without_a_reference_what_explodes_is_told_to_learn_more_slowly(policy):
    data = train.data.quadratic().scaled("standard")
    how = {"loss": "mse", "policy": policy, "epochs": 1}
    _, exploding = recorded(network(data, [16]), data, optimizer=train.SGD(1.0), **how)
    red = [finding for finding in exploding.findings if finding.level == "red"]
    assert red
    for finding in red:
        assert re.search(r"grew [\d,]+-fold, .*: lower the learning rate", finding.cure)
        assert "reference=" in finding.cure
    x = data.x_train * np.float32(1e6)  # too large at once, not by and by
    too_large = dataclasses.replace(data, x_train=x)
    _, unscaled = recorded(network(data, [16]), too_large, optimizer=train.SGD(1e-9), **how)
    how["policy"] = "float16"  # moments in float16 make enormous updates by themselves
    _, moved = recorded(network(data, [8] * 4), data, optimizer="adam", **how)
    for recorder in (unscaled, moved):
        red = [finding for finding in recorder.findings if finding.level == "red"]
        assert red
        assert all("grew" not in finding.cure for finding in red)


def test_gradients_that_are_not_finite_do_not_vanish():
    data = digits()
    how = {"loss": XENT, "optimizer": train.SGD(1e6), "epochs": 5}  # until the scale is 0
    model = network(data, [32, 32])
    reference = train.fit(model, data, policy="float32", verbose=False, rng=0, **how)
    recorder = train.Recorder(10, reference=reference)
    train.fit(model, data, policy="mixed_float16", recorder=recorder, verbose=False, rng=0, **how)
    assert "is not finite" in recorder.verdict[0]
    assert not any("vanish on their way" in sentence for sentence in recorder.verdict)


def test_a_loss_scale_that_is_too_small_is_told_to_be_larger():
    data = digits()
    _, recorder = recorded(
        network(data, [32]),
        data,
        policy="compute=float16,loss_scale=1e-6",
        loss=XENT,
        optimizer="adam",
        epochs=1,
    )
    assert "vanish in float16" in recorder.verdict[0]
    assert "use a loss scale between" in recorder.verdict[0]
    assert not any("no loss scale is needed" in sentence for sentence in recorder.verdict)


def test_second_moments_may_vanish_beside_a_large_epsilon():
    data = digits()
    how = {"loss": XENT, "optimizer": train.Adam(1e-3, epsilon=1e-3), "epochs": 5}
    reference, _ = recorded(network(data, [100]), data, policy="float32", **how)
    _, recorder = recorded(network(data, [100]), data, policy="float16", reference=reference, **how)
    assert recorder.findings == []  # a reference without damage silences every rule
    recorder.reference_account = None
    assert any("of the second moments are zero" in sentence for sentence in recorder.verdict)


def test_skips_name_the_tensor_that_overflowed():
    data = digits()
    policy = train.Policy(compute="float16", loss_scale=train.LossScale(2.0**30))
    history, recorder = recorded(
        network(data, [16]), data, policy=policy, loss=XENT, optimizer="sgd", epochs=2
    )
    assert [event.step for event in recorder.events] == history.skipped_steps
    assert all(event.kind.endswith("gradient") for event in recorder.events)
    assert recorder.skips == len(history.skipped_steps)
    assert [scale for _, scale in recorder.scales] == list(dict.fromkeys(history.loss_scales))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    pytest.importorskip("jinja2", reason="pages need Jinja2")
    pytest.importorskip("matplotlib", reason="pages need matplotlib")
    data = digits()
    path = tmp_path_factory.mktemp("page") / "run.html"
    history, recorder = recorded(
        network(data, [16]),
        data,
        policy=train.Policy(compute="float16", loss_scale=train.LossScale(2.0**26)),
        loss=XENT,
        optimizer="adam",
        epochs=2,
        every=5,
    )
    history.recorder.report(path)
    return path.read_text(encoding="utf-8"), recorder


def test_the_table_fits_a_terminal_with_every_column(page):
    from lowprec.show.text import as_text

    _, recorder = page
    text = as_text(recorder.__rich__(), width=80)
    assert re.search(r"headroom, +SQNR,\n", text)
    assert re.search(r"tensor +new zeros +subnormal +overflows +bits +dB +lost\n", text)


def test_levels_are_told_in_words_and_marks_not_by_colour_alone(page):
    text, recorder = page
    told = re.findall(r"<li class=.(\w+).><b><i aria-hidden=.true.>(.)</i> (\w+)</b>", text)
    marks = {"healthy": "✓", "red": "✗", "amber": "▲", "note": "●"}
    words = {"healthy": "healthy", "red": "problem", "amber": "warning", "note": "note"}
    assert told == [(level, marks[level], words[level]) for level, _ in graded(recorder)]
    for level, sentence in graded(recorder):
        assert f"{marks[level]} {sentence[:20]}" in repr(recorder)
    assert not re.search(r"\b(red|amber)\b", re.sub(r"<[^>]*>", "", text.partition("<body>")[2]))


def test_the_page_says_the_verdict_and_refers_to_nothing_outside(page):
    text, recorder = page
    plain = html.unescape(text).replace("\u00a0", " ")
    assert recorder.verdict[0] in plain
    outside = re.findall(r'(?:src|href)="(?!#|data:)([^"]*)', text) + re.findall(
        r"@import|url\((?!#)", text
    )
    assert outside == []


def test_the_page_says_from_which_epoch_on_the_loss_is_not_finite(tmp_path):
    data = digits()
    how = {"loss": XENT, "optimizer": "adam", "epochs": 2}
    how |= {"model": network(data, [16]), "data": data, "policy": "float16"}
    _, beside = recorded(reference=[1.0, 0.5], **how)
    _, alone = recorded(**how)
    pages = []
    for recorder in (beside, alone):
        recorder.report(tmp_path / "run.html")
        pages.append((tmp_path / "run.html").read_text(encoding="utf-8"))
    for curve in ("training", "validation"):
        assert f"{curve}, not finite from epoch 1" in pages[0]
        assert f"{curve}, not finite from epoch 1" not in pages[1]
    assert "The loss was finite in none of the epochs." in pages[1]


def test_every_picture_of_the_page_has_an_alternative_text(page):
    text, _ = page
    pictures = re.findall(r"<svg[^>]*>", text)
    assert len(pictures) > 10
    assert all(
        'role="img"' in tag and re.search(r'aria-label="[^"]{20,}"', tag) for tag in pictures
    )


def test_every_axis_of_steps_has_its_numbers(page):
    """Also where the last row of panels is not full."""
    text, _ = page
    heat_maps = re.findall(r'<svg[^>]*aria-label="Exponents.*?</svg>', text, re.DOTALL)
    from_zero = [svg for svg in heat_maps if ">0<" in svg]  # not those of steps that were skipped
    assert [svg.count(">0<") for svg in from_zero] == [svg.count(">step<") for svg in from_zero]
    assert max(svg.count(">step<") for svg in from_zero) > 1


def test_ids_of_the_page_are_unique(page):
    text, _ = page
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_a_card_leads_to_its_tensor_whose_picture_comes_first(tmp_path):
    pytest.importorskip("jinja2", reason="pages need Jinja2")
    pytest.importorskip("matplotlib", reason="pages need matplotlib")
    recorder = train.Recorder(policy="compute=float16")
    for step in range(20):
        recorder.observe(step, "weight_gradient", "enc.weight", [1e-9, 3e-9], loss=2.0 - step / 50)
        recorder.observe(step, "weight_gradient", "dec.weight", [1e-2, 3e-1])
    recorder.report(tmp_path / "run.html")
    text = (tmp_path / "run.html").read_text(encoding="utf-8")
    (key,) = re.findall(r'<a href="#(tensor-[^"]+)">', text)
    assert key == "tensor-weight-gradient-enc-weight"
    assert text.count(f'<tr id="{key}">') == 1
    lead = text.partition('<li class="lead">')[2].partition("</li>")[0]
    assert "The weight gradients of enc.weight" in lead
    assert "65504" in lead  # the format's limits are drawn and named
    assert "6e-08" in lead
    assert text.index('<li class="lead">') < text.index("<section>")


def test_every_tensor_is_reached_biases_too(page):
    text, recorder = page
    rows = re.findall(r'<tr id="(tensor-[^"]+)">', text)
    shown = [t for t in recorder.tracks.values() if t.length and t.kind not in ("target", "error")]
    assert len(rows) == len(set(rows)) == len(shown)
    assert re.search(r"<details><summary>Weights, continued</summary>", text)


def test_every_skipped_step_is_drawn():
    pytest.importorskip("matplotlib", reason="pages need matplotlib")
    from lowprec.train.recorder.figures import draw_scales

    recorder = train.Recorder()
    recorder.facts["model"], recorder.steps = "m", 200
    recorder.scales = [(step, 2.0**-step) for step in range(120)]
    recorder.skipped_steps = list(range(120))
    from lowprec.train.recorder import figures

    words = figures.loss_scales(recorder)
    assert "the first at step 0" in words
    drawn = draw_scales(7.0, recorder, recorder.skipped_steps).axes[0].lines
    assert max(len(line.get_xdata()) for line in drawn if line.get_marker() == "x") == 120


def test_numbers_that_lose_what_matters_are_red(tmp_path):
    pytest.importorskip("jinja2", reason="pages need Jinja2")
    pytest.importorskip("matplotlib", reason="pages need matplotlib")
    recorder = train.Recorder(policy="compute=float16")
    recorder.observe(0, "weight_gradient", "small", [1e-9] * 10)
    recorder.observe(0, "weight_gradient", "large", [1e9] * 10)
    recorder.observe(0, "weight_gradient", "fine", [1.0] * 10)
    recorder.report(tmp_path / "run.html")
    text = (tmp_path / "run.html").read_text(encoding="utf-8")

    def red(name):
        row = text.partition(f'<tr id="tensor-weight-gradient-{name}">')[2].partition("</tr>")[0]
        return re.findall(r'<td class="bad">([^<]*)</td>', row)

    assert "100.0 %" in red("small")
    assert "10" in red("large")
    assert red("fine") == []


def test_a_curve_that_ends_shows_where():
    pytest.importorskip("matplotlib", reason="pages need matplotlib")
    from lowprec.train.recorder.figures import draw_curves

    recorder = train.Recorder()
    recorder.curves = {"loss": [2.0, 1.0, float("nan"), float("nan")]}
    (axes,) = draw_curves(7.0, recorder).axes
    assert "NaN at 3" in [text.get_text() for text in axes.texts]


def test_a_page_of_observed_tensors_can_be_written(tmp_path):
    pytest.importorskip("jinja2", reason="pages need Jinja2")
    pytest.importorskip("matplotlib", reason="pages need matplotlib")
    recorder = train.Recorder(policy="float16")
    recorder.observe(0, "activation", "<layer>", [1.0, 2.0])
    recorder.report(tmp_path / "run.html")
    assert "&lt;layer&gt;" in (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "Nothing was recorded" in train.Recorder().verdict[0]


def test_starts_show_what_initializers_do():
    found = record_starts(["float16"], layers=4)
    assert list(found) == list(STARTS)
    sizes = {
        start: [by_format["float16"].track("activation", str(i)).whole.rms for i in range(4)]
        for start, by_format in found.items()
    }
    assert sizes["std 1"][-1] > 0.9  # tanh is saturated
    assert sizes["std 0.01"][-1] < 1e-3 * sizes["std 0.01"][0]  # signals vanish
    assert 0.1 < sizes["Glorot"][-1] / sizes["Glorot"][0] < 2


def test_the_figures_of_notebooks_are_drawn():
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    from lowprec.train.recorder.plots import starts_figure

    found = record_starts(["float32", "float16"], layers=2)
    assert len(starts_figure(found).axes) == 8
    recorder = found["He"]["float16"]
    assert "activation gradients" in recorder.plot().axes[0].get_title(loc="left")
    with pytest.raises(ValueError, match="no moments were recorded"):
        recorder.plot("moment")


def test_a_stray_number_does_not_stretch_a_histogram_and_its_words_do_not_meet():
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    recorder = train.Recorder(policy="float16")
    recorder.observe(0, "weight", "w", [2.0**-20] * 999 + [2.0**-90])
    (axes,) = recorder.plot("weight", "float16").axes
    assert axes.get_xlim()[0] > -40
    assert len({text.get_position()[1] for text in axes.texts}) == len(axes.texts) == 2


def test_skips_without_a_tensor_to_name_are_told():
    recorder = train.Recorder(policy="mixed_float16")
    recorder.steps, recorder.skips = 40, 20
    (finding,) = warnings_of(recorder)
    assert finding.text == "50 % of the steps were skipped"
