"""Conversations with a Kafka server, each about one thing, and what Apache Kafka says in them.

    python -m tests.e2e.answers HOST:PORT [CONVERSATION ...]

has them with an Apache Kafka (see apache_kafka.py) and writes down its answers, one JSON file
beside each conversation; `test_answers.py` has them with Isthmus and compares, field by field.
Where Isthmus is meant to answer otherwise stands in `differences.toml`, with the reason.
"""
