"""What people write to get from an MQTT broker into Kafka: paho-mqtt in, confluent-kafka out.

Done with care: a message is acknowledged to the broker when Kafka has acknowledged it, the key
is the topic name, and nothing lingers.

    python -m bench.bridge_program MQTT_PORT KAFKA_PORT TOPIC_FILTER LOG_TOPIC
"""

from __future__ import annotations

import sys
from typing import Any

from confluent_kafka import Producer
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

TURN_S = 0.1


def bridge(mqtt_port: int, kafka_port: int, topic_filter: str, log_topic: str) -> None:
    """Pass on until ended; `ready` is printed when the subscription is there."""
    producer = Producer(
        {
            "bootstrap.servers": f"127.0.0.1:{kafka_port}",
            "acks": "all",
            "linger.ms": 0,
            "log_level": 0,
        }
    )
    producer.list_topics(log_topic, timeout=30)
    client = Client(CallbackAPIVersion.VERSION2, "bench-bridge", manual_ack=True)

    def pass_on(_client: Client, _userdata: Any, message: MQTTMessage) -> None:
        def acknowledge(error: object, _record: object) -> None:
            if error is None and message.qos:
                client.ack(message.mid, message.qos)

        producer.produce(log_topic, message.payload, message.topic, on_delivery=acknowledge)

    client.on_message = pass_on
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.connect("127.0.0.1", mqtt_port)
    client.subscribe(topic_filter, 1)
    client.loop_start()
    while True:
        producer.poll(TURN_S)


if __name__ == "__main__":
    bridge(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5])
