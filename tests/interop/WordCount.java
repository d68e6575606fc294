// Kafka Streams counts words exactly once, until it is ended:
//
//   java -cp 'JARS/*' WordCount.java HOST:PORT APPLICATION DIRECTORY
//
// Lines come from APPLICATION-lines and are taken apart; the words go through a repartition topic
// into a store with a changelog, and each new count to APPLICATION-counts, as "WORD COUNT". The
// input is said to be read once the store has been brought back: "running".

import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Named;
import org.apache.kafka.streams.kstream.Grouped;

public class WordCount {
    public static void main(String[] arguments) {
        String application = arguments[1];
        Properties how = new Properties();
        how.putAll(Map.of(
            StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0],
            StreamsConfig.APPLICATION_ID_CONFIG, application,
            StreamsConfig.STATE_DIR_CONFIG, arguments[2],
            StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2,
            StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class,
            StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class,
            // Every count is written, not only the last one of a transaction.
            StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0,
            StreamsConfig.REPARTITION_PURGE_INTERVAL_MS_CONFIG, 500));
        // What a killed one leaves behind is over soon: its membership and its transaction.
        how.put(StreamsConfig.consumerPrefix("session.timeout.ms"), 6_000);
        how.put(StreamsConfig.producerPrefix("transaction.timeout.ms"), 10_000);

        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream(application + "-lines")
            .flatMapValues(line -> List.of(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.as("words"))
            .count(Named.as("count"), Materialized.as("store"))
            .toStream()
            .mapValues((word, count) -> word + " " + count)
            .to(application + "-counts");
        KafkaStreams streams = new KafkaStreams(builder.build(), how);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
                System.out.println("running");
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
