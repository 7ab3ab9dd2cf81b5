import torch

from runner.processes.message_buffer import BATCH, STOP, MessageBuffer

FIELDS = {"g": 5, "w": 3}


def test_message_arrives_as_it_was_sent():
    sent, received = MessageBuffer(FIELDS), MessageBuffer(FIELDS)
    sent.header[0], sent.header[1] = STOP, 2**40 + 1
    sent.numbers[:3] = torch.tensor([0.1, 2.0, 3.0], dtype=torch.float64)
    sent.fill({"g": torch.arange(5.0), "w": torch.tensor([-1.0, float("inf"), 1e-40])})
    received.raw.copy_(sent.raw)
    assert received.header[:2].tolist() == [STOP, 2**40 + 1]
    assert received.numbers[:3].tolist() == [0.1, 2.0, 3.0]
    assert torch.equal(received.tensors["g"], torch.arange(5.0))
    assert torch.equal(received.tensors["w"], torch.tensor([-1.0, float("inf"), 1e-40]))
    assert BATCH != STOP


def test_the_buffer_is_as_long_as_its_content():
    assert MessageBuffer(FIELDS).raw.numel() == MessageBuffer({}).raw.numel() + 4 * 8
    assert MessageBuffer(FIELDS).raw.dtype == torch.uint8


def test_missing_fields_are_zero_and_float64_fits():
    buffer = MessageBuffer(FIELDS)
    buffer.fill({"w": torch.ones(3, dtype=torch.float64)})
    assert buffer.tensors["w"].tolist() == [1.0, 1.0, 1.0]
    assert not buffer.tensors["g"].any()


def test_the_parts_do_not_overlap():
    buffer = MessageBuffer(FIELDS)
    buffer.header.fill_(-1)
    assert not buffer.numbers.any()
    buffer.numbers.fill_(7.0)
    assert not buffer.tensors["g"].any()
    buffer.tensors["g"].fill_(3.0)
    assert buffer.header.tolist() == [-1] * len(buffer.header)
    assert set(buffer.numbers.tolist()) == {7.0}
    assert not buffer.tensors["w"].any()
