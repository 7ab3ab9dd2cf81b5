"""What commands say of a wrong command line."""

import pytest

from runner.cli import dcreport, dcrun_check, dcrun_fit
from runner.cli.one_line_parser import OneLineParser


@pytest.mark.parametrize(
    ("main", "arguments", "line"),
    [
        (dcreport.main, [], "dcreport: the following arguments are required: PATH; dcreport --help lists the flags"),
        (dcreport.main, ["a", "--port", "x"], "dcreport: argument --port: invalid int value: 'x'; "),
        (dcrun_check.main, ["--quick"], "dcrun-check: the following arguments are required: METHOD; "),
        (dcrun_fit.main, ["a", "--no"], "dcrun-fit: unrecognized arguments: --no; dcrun-fit --help lists the flags"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(main, arguments: list[str], line: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    [told] = capsys.readouterr().err.splitlines()
    assert told.startswith(line)


def test_help_is_the_usual_one(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        OneLineParser(prog="tool", description="Does it.").parse_args(["--help"])
    assert ended.value.code == 0
    assert "Does it." in capsys.readouterr().out
