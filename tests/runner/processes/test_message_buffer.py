import torch

from runner.processes.message_buffer import BATCH, STOP, Packet

FIELDS = {"g": 5, "w": 3}


def test_all_is_one_buffer_and_arrives_as_it_was_sent():
    sent, received = Packet(FIELDS), Packet(FIELDS)
    sent.header[0], sent.header[1] = STOP, 2**40 + 1
    sent.numbers[:3] = torch.tensor([0.1, 2.0, 3.0], dtype=torch.float64)
    sent.fill({"g": torch.arange(5.0), "w": torch.tensor([-1.0, float("inf"), 1e-40])})
    received.buffer.copy_(sent.buffer)
    assert received.header[:2].tolist() == [STOP, 2**40 + 1]
    assert received.numbers[:3].tolist() == [0.1, 2.0, 3.0]
    assert torch.equal(received.tensors["g"], torch.arange(5.0))
    assert torch.equal(received.tensors["w"], torch.tensor([-1.0, float("inf"), 1e-40]))
    assert BATCH != STOP


def test_the_buffer_is_as_long_as_its_content():
    assert Packet(FIELDS).buffer.numel() == Packet({}).buffer.numel() + 4 * 8
    assert Packet(FIELDS).buffer.dtype == torch.uint8


def test_a_message_may_lack_fields_and_may_be_double():
    packet = Packet(FIELDS)
    packet.fill({"w": torch.ones(3, dtype=torch.float64)})
    assert packet.tensors["w"].tolist() == [1.0, 1.0, 1.0]
    assert not packet.tensors["g"].any()


def test_the_parts_do_not_overlap():
    packet = Packet(FIELDS)
    packet.header.fill_(-1)
    assert not packet.numbers.any()
    packet.numbers.fill_(7.0)
    assert not packet.tensors["g"].any()
    packet.tensors["g"].fill_(3.0)
    assert packet.header.tolist() == [-1] * len(packet.header)
    assert set(packet.numbers.tolist()) == {7.0}
    assert not packet.tensors["w"].any()
