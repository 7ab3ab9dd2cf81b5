import pytest

from runner.run_folder.logger_thread import LoggerThread


def test_calls_keep_their_order_and_end_at_an_error(caplog: pytest.LogCaptureFixture):
    made: list[int] = []

    def broken() -> None:
        raise ConnectionError("the server is gone")

    thread = LoggerThread("mlflow")
    for number in range(50):
        thread.call(lambda number=number: made.append(number))
    thread.call(broken)
    thread.call(broken)
    thread.call(lambda: made.append(-1))
    thread.finish()
    assert made == list(range(50))
    assert [record.getMessage() for record in caplog.records] == [
        "mlflow failed (ConnectionError: the server is gone); the run goes on without it"
    ]
