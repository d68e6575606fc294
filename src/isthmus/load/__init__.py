"""A load for any MQTT broker or Kafka cluster, and the honest account of what became of it.

`isthmus bench` and bench/ drive servers with it; it knows nothing of ours. What happens per
message is compiled and has no I/O (publisher.py, subscriber.py, frames.py, tally.py,
latencies.py); sockets are in transport.py, one client in link.py, all of them and the phases of
a run in mqtt.py. kafka.py and bridge.py drive stock clients.

Every message has a number, so that each one that is lost or comes twice is known, and the time
when it was due, so that nothing the server does delays the question how long it took.
"""
