"""Reports of benchmark results: what is read, what is compared, and what is noise.

The stored file holds a few rows of a real run, their quartiles drawn in to 2 % around the median.
"""

import copy
import json
import re
from pathlib import Path

import pytest

from benchmarks.report import Quartiles, changes, read_results
from benchmarks.report.__main__ import main
from benchmarks.report.findings import experiments, goals, ranges
from benchmarks.report.headlines import headline

STORED = Path(__file__).parent / "data" / "benchmarks.json"


@pytest.fixture
def stored():
    return json.loads(STORED.read_text())


@pytest.fixture
def write(tmp_path):
    def written(data, name="new.json"):
        path = tmp_path / name
        path.write_text(json.dumps(data))
        return path

    return written


def entry(data, name):
    (found,) = (one for one in data["benchmarks"] if name in one["name"])
    return found


def slowed(data, name, factor):
    """Multiply the times and ratios of a row."""
    data = copy.deepcopy(data)
    one = entry(data, name)
    for key in ("q1", "median", "q3"):
        one["stats"][key] *= factor
    for ratio in ("copy_ratio", "float32_ratio"):
        for key in one["extra_info"].get(ratio, {}):
            one["extra_info"][ratio][key] *= factor
    return data


OURS = "10000000-lowprec-1-preallocated-bfloat16-encode"
UNTOLD = "test_untold"


def test_every_row_is_read_with_its_time_ratios_and_errors():
    results = read_results(STORED)
    data = json.loads(STORED.read_text())
    assert len(results.rows) == len(data["benchmarks"])
    (row,) = (row for row in results.rows if OURS in row.name)
    stats = entry(data, OURS)["stats"]
    assert row.seconds == Quartiles(stats["q1"], stats["median"], stats["q3"])
    assert (row.kind, row.work, row.fmt, row.who) == ("conversion", "encode", "bfloat16", "lowprec")
    assert row.nanoseconds == pytest.approx(stats["median"] * 1e9 / 1e7)
    assert row.facts["bit_match"] == 1.0


def test_rows_that_say_nothing_keep_their_times(stored, write):
    bare = {"stats": entry(stored, OURS)["stats"], "name": UNTOLD, "group": "theirs"}
    stored["benchmarks"].append(bare | {"fullname": f"x.py::{UNTOLD}"})
    row = read_results(write(stored)).rows[-1]
    assert (row.kind, row.work, row.copy_ratio) == ("other", "theirs", None)


def test_the_floor_is_what_a_copy_takes():
    results = read_results(STORED)
    (row,) = (row for row in results.rows if OURS in row.name)
    floor = results.floor(row.elements)
    assert floor == pytest.approx(row.seconds.median / row.copy_ratio.median, rel=0.5)
    assert results.floor(3) is None


def test_the_headline_tells_how_many_times_as_long_a_peer_takes():
    results = read_results(STORED)
    (line,) = (line for line in headline(results, "conversion") if line.work == "encode bfloat16")
    times = {
        row.who: row.seconds.median
        for row in line.rows
        if row.elements == 10**7 and row.allocation == "preallocated"
    }
    ratio = times["torch"] / times["lowprec"]
    assert f"torch {ratio:.2f}×" in line.peers
    assert line.right == "100 %"


def test_every_library_has_a_line_of_its_own():
    pytest.importorskip("matplotlib", reason="the charts need the extra report")
    from benchmarks.report.charts import _STYLES

    assert len(set(_STYLES.values())) == len(_STYLES)


def test_a_note_about_a_task_stands_beside_that_task_alone(monkeypatch):
    monkeypatch.syspath_prepend(STORED.parents[2] / "benchmarks")
    from peers import PEERS

    torch = PEERS["torch"]
    assert torch.note("bfloat16", "encode") == ""
    assert torch.note("bfloat16", "round_to") == "round_to is two casts"
    assert torch.note("float8_e4m3fn", "round_to") == "saturates; round_to is two casts"
    assert PEERS["qtorch"].note("bfloat16", "round_to") == "ties go away from zero; saturates"


def test_a_ratio_that_was_not_measured_in_turns_is_marked(stored, write):
    one = entry(stored, "test_operation[add-bfloat16-100000-lowprec-1]")
    one["extra_info"].pop("float32_ratio", None)
    (line,) = (
        line
        for line in headline(read_results(write(stored)), "operation")
        if line.work == "add bfloat16"
    )
    assert line.float32.startswith("≈ ")


def test_a_file_compared_with_itself_has_not_changed():
    results = read_results(STORED)
    assert changes(results, results, threshold=0.0) == []


def test_a_row_that_takes_longer_is_found_with_its_factor(stored, write):
    old, new = read_results(STORED), read_results(write(slowed(stored, OURS, 1.5)))
    (change,) = changes(new, old)
    assert change.is_slower
    assert change.factor == pytest.approx(1.5)
    assert change.measure == "× copy"
    (back,) = changes(old, new)
    assert not back.is_slower


def test_a_busy_machine_slows_times_but_not_ratios(stored, write):
    slow = copy.deepcopy(stored)
    for one in slow["benchmarks"]:
        if "copy_ratio" in one["extra_info"]:
            for key in ("q1", "median", "q3"):
                one["stats"][key] *= 3
    assert changes(read_results(write(slow)), read_results(STORED)) == []


def test_a_median_that_moves_within_its_spread_is_noise(stored, write):
    noisy = slowed(stored, OURS, 1.5)
    ratio = entry(noisy, OURS)["extra_info"]["copy_ratio"]
    ratio["low"] = entry(stored, OURS)["extra_info"]["copy_ratio"]["median"]
    assert changes(read_results(write(noisy)), read_results(STORED)) == []


def test_a_change_below_the_threshold_is_not_told(stored, write):
    new, old = read_results(write(slowed(stored, OURS, 1.5))), read_results(STORED)
    assert changes(new, old, threshold=0.6) == []


def test_experiments_are_not_judged_by_their_time(stored, write):
    new = slowed(stored, "test_experiment[sum of 10,000 numbers, sequential-bfloat16]", 10)
    assert changes(read_results(write(new)), read_results(STORED)) == []


def test_goals_are_told_as_they_were_judged():
    found = {goal.work: goal for goal in goals(read_results(STORED))}
    assert found["encode bfloat16"].met == "yes"
    assert found["encode bfloat16"].bound == "≤ 1.1 × copy"
    assert {goal.met for goal in found.values()} == {"yes", "NO"}


def test_range_and_precision_have_a_column_for_each_format():
    results = read_results(STORED)
    assert ranges(results).rows["uniform in 0…1"][0] == "100 %"
    table = experiments(results)
    assert table.rows["softmax, as written"][table.formats.index("float16")] == "broke"
    assert all(source for source in table.notes.values())


def test_the_command_prints_every_part_and_fits_its_width(capsys):
    assert main([str(STORED)]) == 0
    printed = capsys.readouterr().out
    for words in ("What was promised", "Range", "Precision", "Conversions", "E[x²] - E[x]²"):
        assert words in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_the_command_fails_where_something_became_slower(stored, write, capsys):
    new = write(slowed(stored, OURS, 1.5))
    assert main([str(new), "--baseline", str(STORED)]) == 1
    assert re.search(
        r"\+50 % \(× copy\): encode bfloat16, 10,000,000 elements, lowprec", capsys.readouterr().out
    )
    assert main([str(STORED), "--baseline", str(new)]) == 0
    assert "-33 %" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmarks": [{}], "machine_info": {}}'])
def test_another_file_is_an_error_that_says_how_to_make_one(text, tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text(text)
    assert main([str(path)]) == 2
    assert "--benchmark-json=out.json" in capsys.readouterr().err


def test_a_missing_file_is_an_error(capsys):
    assert main(["/nowhere/out.json"]) == 2
    told = capsys.readouterr().err
    assert "nowhere" in told
    assert "--benchmark-json=out.json" in told


@pytest.mark.parametrize("threshold", ["-0.1", "nan"])
def test_a_threshold_that_nothing_or_everything_exceeds_is_refused(threshold, capsys):
    with pytest.raises(SystemExit):
        main(["out.json", f"--threshold={threshold}"])
    assert "use 0 or more" in capsys.readouterr().err


def test_the_page_refers_to_nothing_outside_itself(tmp_path):
    pytest.importorskip("matplotlib", reason="the report's extra is missing")
    pytest.importorskip("jinja2", reason="the report's extra is missing")
    page = tmp_path / "bench.html"
    assert main([str(STORED), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!#)', text)
    assert "<svg" in text
    for words in ("What was promised", "Carson and Higham", "float32 copy (the floor)"):
        assert words in text
    assert [path.name for path in tmp_path.iterdir()] == ["bench.html"]


def test_markdown_is_a_table_with_the_date_and_the_machine(capsys):
    assert main([str(STORED), "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert any(line.startswith("Measured 20") for line in lines)
