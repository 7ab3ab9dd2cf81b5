import pytest

from runner.loop.stop import PeerLost, Stop


def test_a_stop_is_no_failure():
    stop = Stop("diverged")
    assert (stop.status, stop.code, str(stop)) == ("diverged", 0, "diverged")


def test_lost_peer_interrupts_with_code_3():
    """Whoever catches a stop catches it too, and a resume goes on from the last checkpoint."""
    with pytest.raises(Stop) as caught:
        raise PeerLost("rank 1 lost a peer in step 7")
    assert (caught.value.status, caught.value.code) == ("interrupted", 3)
    assert getattr(caught.value, "message", None) == "rank 1 lost a peer in step 7"
