"""What the page's JSON shares between runs, and what it keeps apart for later."""

import json

from runner.report.page_json import DETAILS, details, pooled, script_json, without_details

RUNS = [
    {"label": "a", "evaluations": [0, 1], "curve": {"epoch": [1.0, 2.0], "loss": [3.0, 2.0]}},
    {"label": "b", "evaluations": [0, 1], "curve": {"epoch": [1.0, 2.0], "updates": [1, 2]}},
]


def test_columns_that_runs_share_stand_once():
    made = pooled(RUNS)
    # 1 and 1.0 are another text, and stay one.
    assert made["pool"] == [[0, 1], [1.0, 2.0], [3.0, 2.0], [1, 2]]
    assert [type(column[0]) for column in made["pool"]] == [int, float, float, int]
    assert made["runs"][1] == {"label": "b", "evaluations": 0, "curve": {"epoch": 1, "updates": 3}}
    assert RUNS[0]["evaluations"] == [0, 1], "what was given stays as it was"


def test_details_are_a_line_a_run():
    runs = [{"label": name, **{key: [name, "\n</script>"] for key in DETAILS}} for name in "ab"]
    lines = details(runs).split("\n")
    assert [json.loads(line)["facts"] for line in lines] == [["a", "\n</script>"], ["b", "\n</script>"]]
    assert "</script" not in details(runs)
    assert without_details(runs) == [{"label": "a"}, {"label": "b"}]


def test_no_text_ends_the_script():
    assert script_json("</script>\u2028") == '"\\u003c/script>\\u2028"'
