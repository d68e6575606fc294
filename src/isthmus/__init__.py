"""Isthmus: one log with two shores, an MQTT broker and a Kafka server over the same log."""

__version__ = "0.1.0"
