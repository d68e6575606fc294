// Two schema registries over one compacted log topic, in Connect's own class for that:
//
//   java -cp 'JARS/*' Registry.java HOST:PORT LOG_TOPIC FIRST END
//
// Both read the log topic, which is made if there is none, and the first registers the schemas of
// the numbers from FIRST to END: one in seven takes its subject back, with a tombstone. Then both
// have read to the end and know the same, which is printed: SUBJECT NUMBER, a line each.

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.connect.util.KafkaBasedLog;
import org.apache.kafka.connect.util.TopicAdmin;

public class Registry {
    static final int SUBJECTS = 60;
    static final int TAKEN_BACK = 7;
    static final int SCHEMA_SIZE = 1_000;
    static final Random CHANCE = new Random(1);

    final Map<String, String> schemas = new ConcurrentSkipListMap<>();
    final KafkaBasedLog<String, String> log;

    Registry(String server, String name) {
        Map<String, Object> where = Map.of("bootstrap.servers", server);
        Map<String, Object> produced = new HashMap<>(Map.of(
            "bootstrap.servers", server,
            "acks", "all",
            "key.serializer", StringSerializer.class,
            "value.serializer", StringSerializer.class));
        Map<String, Object> consumed = new HashMap<>(Map.of(
            "bootstrap.servers", server,
            "isolation.level", "read_committed",
            "key.deserializer", StringDeserializer.class,
            "value.deserializer", StringDeserializer.class));
        log = new KafkaBasedLog<>(name, produced, consumed, () -> new TopicAdmin(where),
            this::read, Time.SYSTEM, admin -> prepare(admin, name));
        log.start();
    }

    static void prepare(TopicAdmin admin, String name) {
        admin.createOrFindTopic(TopicAdmin.defineTopic(name)
            .config(Map.of("segment.bytes", "1048576", "min.cleanable.dirty.ratio", "0.01"))
            .compacted().partitions(1).replicationFactor((short) 1).build());
        admin.verifyTopicCleanupPolicyOnlyCompact(name, "schemas", "schemas");
    }

    void read(Throwable failure, ConsumerRecord<String, String> record) {
        if (failure != null) {
            throw new IllegalStateException(failure);
        } else if (record.value() == null) {
            schemas.remove(record.key());
        } else {
            schemas.put(record.key(), record.value());
        }
    }

    Future<RecordMetadata> register(int number) {
        String subject = String.format("subject-%02d", number % SUBJECTS);
        if (number % TAKEN_BACK == 0) {
            return log.sendWithReceipt(subject, null);
        }
        StringBuilder schema = new StringBuilder(number + " ");
        CHANCE.ints(SCHEMA_SIZE, 'a', 'z').forEach(schema::appendCodePoint);
        return log.sendWithReceipt(subject, schema.toString());
    }

    public static void main(String[] arguments) throws Exception {
        Registry first = new Registry(arguments[0], arguments[1]);
        Registry second = new Registry(arguments[0], arguments[1]);
        List<Future<RecordMetadata>> receipts = new ArrayList<>();
        int end = Integer.parseInt(arguments[3]);
        for (int number = Integer.parseInt(arguments[2]); number < end; number++) {
            receipts.add(first.register(number));
        }
        for (Future<RecordMetadata> receipt : receipts) {
            receipt.get();
        }
        first.log.readToEnd().get();
        second.log.readToEnd().get();
        if (!first.schemas.equals(second.schemas)) {
            throw new IllegalStateException("two registries know different schemas");
        }
        first.schemas.forEach(
            (subject, schema) -> System.out.println(subject + " " + schema.split(" ")[0]));
        first.log.stop();
        second.log.stop();
    }
}
