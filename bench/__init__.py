"""The benchmark table of the budget (DESIGN 8): systems side by side, alternating in one run.

`python -m bench` measures and prints; `python -m bench.profile ROW` shows where a server spends
its time on one row. For whoever changes the message path and wants to know what it cost.

    machine.py        cores, pinning, what this machine is
    process.py        one server process: start, CPU, memory, stop
    systems.py        how to start Isthmus, Mosquitto and the null broker
    apache_kafka.py   how to get and start Apache Kafka
    bridged.py        Mosquitto, a bridge (bridge_program.py) and Apache Kafka as one system
    load.py           the MQTT load: `isthmus.load`, as `isthmus bench` has it, on one system
    mqtt_client.py  packets.py    a raw MQTT client for rows that need no such load
    null_broker.py    a broker that does nothing: the ceiling of the load generator
    kafka_wire.py     the few Kafka requests that the raw Kafka load needs
    kafka_load.py     the Kafka load: confluent-kafka, and raw sockets
    rows.py           what is measured: one Row each
    mqtt_rows.py  kafka_rows.py  footprint_rows.py    how each row is measured
    report.py         the table and the JSON file
    profile.py        perf on one row
    engine.py         the log engine by itself: commits of many partitions, recovery

Not here: tests of correctness. Still, every MQTT load compares each delivery with what was
published, and every row counts what was lost.
"""
