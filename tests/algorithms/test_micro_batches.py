"""The order of a module's passes."""

from algorithms.micro_batches import order_1f1b


def test_one_forward_and_one_backward_in_turn():
    def short(micro_batches: int, ahead: int) -> str:
        return "".join(call[0].upper() for call in order_1f1b(micro_batches, ahead))

    assert short(4, 4) == "FFFFBBBB"
    assert short(4, 0) == "FBFBFBFB"
    assert short(4, 2) == "FFFBFBBB"
    assert short(2, 3) == "FFBB"
