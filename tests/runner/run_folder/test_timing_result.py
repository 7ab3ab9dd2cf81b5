"""The table of a run of the clock alone."""

import pytest

from runner.run_folder.timing_result import bytes_text, timing_rows


def test_rows_say_what_there_is():
    assert timing_rows(
        {
            "virtual_samples_per_second": 306321.9,
            "virtual_gradients_per_second": 9592.5,
            "epoch_seconds": 1234.5,
            "staleness_mean": 9628.6,
            "staleness_max": 15028,
            "computing_share": 0.951,
            "transferring_share": 0.049,
            "waiting_share": 0.0,
            "bytes_sent": 290_988_720_000,
            "events": 135_000,
            "events_per_second": 398_381.2,
        }
    ) == {
        "throughput": "306,322 samples and 9,592 gradients per virtual s",
        "an epoch": "1,234 virtual s",
        "staleness": "mean 9,629, largest 15,028",
        "a worker's time": "computing 95.1 %, transferring 4.9 %, waiting 0.0 %",
        "sent": "291 GB",
        "events": "135,000, 398,381 a second",
    }


def test_rows_of_nothing_are_empty():
    assert not any(timing_rows({"staleness_mean": None, "events": None}).values())


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (2_600, "2.6 kB"),
        (999_600, "1 MB"),
        (5e15, "5 PB"),
        (5e19, "5e+04 PB"),
    ],
)
def test_bytes_have_three_digits(count: float, text: str):
    assert bytes_text(count) == text
