"""Packets compare by content and show themselves without secrets."""

from __future__ import annotations

import pytest

from isthmus.mqtt import packets
from isthmus.mqtt.packets import Ack, Connect, Disconnect, Pingreq, Pingresp, Publish, Will


def test_each_packet_knows_its_type() -> None:
    made = [
        Connect(5, "c"),
        packets.Connack(),
        Publish(b"t", b""),
        *(Ack(kind, 1) for kind in range(packets.PUBACK, packets.PUBCOMP + 1)),
        packets.Subscribe(1, [("a", 0)]),
        packets.Suback(1, [0]),
        packets.Unsubscribe(1, ["a"]),
        packets.Unsuback(1, []),
        Pingreq(),
        Pingresp(),
        Disconnect(),
        packets.Auth(0x18),
    ]
    assert [packet.type for packet in made] == list(range(1, 16))
    assert [packets.NAMES[packet.type] for packet in made][:3] == [
        "CONNECT",
        "CONNACK",
        "PUBLISH",
    ]


def test_equality_is_class_and_content() -> None:
    assert Publish(b"t", b"x", qos=1, packet_id=7) == Publish(b"t", b"x", qos=1, packet_id=7)
    assert Publish(b"t", b"x") != Publish(b"t", b"x", retain=True)
    assert Ack(packets.PUBACK, 1) != Ack(packets.PUBREC, 1)
    assert Pingreq() == Pingreq()
    assert Pingreq() != Pingresp()
    assert Connect(5, "c", will=Will(b"t", b"")) == Connect(5, "c", will=Will(b"t", b""))
    assert Connect(5, "c", will=Will(b"t", b"")) != Connect(5, "c", will=Will(b"t", b"", qos=1))
    with pytest.raises(TypeError):
        hash(Disconnect())


def test_a_packet_as_text_names_its_fields_but_no_secret() -> None:
    assert repr(Ack(packets.PUBREL, 9, 0x92)) == (
        "Ack(packet_id=9, properties=None, reason=146, type=6)"
    )
    text = repr(Connect(5, "c", username="u", password=b"secret"))
    assert "username='u'" in text
    assert "secret" not in text
