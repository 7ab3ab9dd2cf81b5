"""Streams of randomness: the numbers that every recorded run rests on."""

import hashlib

from runner.config.seeds import derive


def test_streams_are_the_recorded_ones():
    # Fixed for ever: another number here means other weights for every run that was ever recorded.
    digest = hashlib.blake2b(b"0/permutation/3", digest_size=8).digest()
    assert derive(0, "permutation", 3) == int.from_bytes(digest, "little") // 2


def test_streams_differ_by_seed_and_name():
    found = {derive(seed, name, number) for seed in (0, 1) for name in ("a", "b") for number in range(50)}
    assert len(found) == 200
    assert all(0 <= value < 2**63 for value in found)
