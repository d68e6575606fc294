// What a user of Kafka's Java client may do, and what it is told where it may not: one line of
// `name=result` for each attempt. The same program runs against Isthmus and Apache Kafka.
//
//   java -cp 'kafka/*' Rights.java HOST:PORT
//
// `admin` (password `admin-secret`) is a super user, `ann` (`ann-secret`) has the ACLs made here.

import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.config.*;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.resource.*;
import org.apache.kafka.common.serialization.*;

public class Rights {
    static String broker;

    interface Attempt { Object run() throws Exception; }

    static void attempt(String name, Attempt attempt) {
        String said;
        try {
            said = String.valueOf(attempt.run());
        } catch (Throwable error) {
            Throwable cause = error;
            while ((cause instanceof ExecutionException || cause instanceof CompletionException)
                    && cause.getCause() != null)
                cause = cause.getCause();
            if (cause.getClass() == KafkaException.class && cause.getCause() != null) cause = cause.getCause();
            said = cause.getClass().getSimpleName();
        }
        System.out.println(name + "=" + said);
    }

    static Properties as(String mechanism, String user, String password) {
        Properties about = new Properties();
        String module = mechanism.equals("PLAIN") ? "plain.Plain" : "scram.Scram";
        about.put("bootstrap.servers", broker);
        about.put("security.protocol", "SASL_PLAINTEXT");
        about.put("sasl.mechanism", mechanism);
        about.put("sasl.jaas.config", "org.apache.kafka.common.security." + module + "LoginModule required username=\"" + user + "\" password=\"" + password + "\";");
        about.put("request.timeout.ms", "60000");
        about.put("default.api.timeout.ms", "60000");
        about.put("max.block.ms", "60000");
        return about;
    }

    static AclBinding acl(ResourceType type, PatternType pattern, String name, String user, AclOperation operation, AclPermissionType permission) {
        return new AclBinding(new ResourcePattern(type, name, pattern), new AccessControlEntry("User:" + user, "*", operation, permission));
    }

    static AclBinding allow(ResourceType type, String name, AclOperation operation) {
        return acl(type, PatternType.LITERAL, name, "ann", operation, AclPermissionType.ALLOW);
    }

    static Properties data(Properties about) {
        about.put("key.serializer", ByteArraySerializer.class.getName());
        about.put("value.serializer", ByteArraySerializer.class.getName());
        about.put("key.deserializer", ByteArrayDeserializer.class.getName());
        about.put("value.deserializer", ByteArrayDeserializer.class.getName());
        return about;
    }

    static Object produce(Properties about, String topic) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(data(about))) {
            return producer.send(new ProducerRecord<>(topic, 0, null, "v".getBytes())).get().offset();
        }
    }

    static Object consume(Properties about, String group, String topic) throws Exception {
        about.put("group.id", group);
        about.put("auto.offset.reset", "earliest");
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(data(about))) {
            consumer.subscribe(List.of(topic));
            for (int turn = 0; turn < 60; turn++) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofSeconds(1));
                if (!records.isEmpty()) {
                    consumer.commitSync();
                    return records.count();
                }
            }
            return "nothing";
        }
    }

    static Object sorted(Collection<?> items) {
        TreeSet<String> names = new TreeSet<>();
        for (Object item : items) if (!item.toString().startsWith("__")) names.add(item.toString());
        return names;
    }

    public static void main(String[] arguments) throws Exception {
        broker = arguments[0];
        try (Admin admin = Admin.create(as("PLAIN", "admin", "admin-secret"))) {
            UserScramCredentialAlteration sha256 = new UserScramCredentialUpsertion("ann", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "ann-secret");
            UserScramCredentialAlteration sha512 = new UserScramCredentialUpsertion("ann", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 8192), "ann-secret");
            attempt("user", () -> admin.alterUserScramCredentials(List.of(sha256)).all().get());
            attempt("user with another", () -> admin.alterUserScramCredentials(List.of(sha512)).all().get());
            attempt("user twice", () -> admin.alterUserScramCredentials(List.of(sha256, sha512)).all().get());
            attempt("described users", () -> admin.describeUserScramCredentials(List.of("ann")).all().get().get("ann").credentialInfos().size());
            attempt("unknown user", () -> admin.describeUserScramCredentials(List.of("nobody")).description("nobody").get());
            attempt("deleted user", () -> admin.alterUserScramCredentials(List.of(new UserScramCredentialDeletion("nobody", ScramMechanism.SCRAM_SHA_256))).all().get());
            attempt("few iterations", () -> admin.alterUserScramCredentials(List.of(
                new UserScramCredentialUpsertion("bob", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 100), "x"))).all().get());
            attempt("topics", () -> admin.createTopics(List.of(new NewTopic("open", 1, (short) 1), new NewTopic("shut", 1, (short) 1), new NewTopic("pre-a", 1, (short) 1), new NewTopic("seen", 1, (short) 1))).all().get());
            attempt("acls", () -> admin.createAcls(List.of(
                allow(ResourceType.TOPIC, "open", AclOperation.READ),
                allow(ResourceType.TOPIC, "open", AclOperation.WRITE),
                allow(ResourceType.TOPIC, "seen", AclOperation.DESCRIBE),
                allow(ResourceType.GROUP, "mine", AclOperation.READ),
                allow(ResourceType.TRANSACTIONAL_ID, "txn", AclOperation.WRITE),
                acl(ResourceType.TOPIC, PatternType.PREFIXED, "pre-", "ann", AclOperation.ALL, AclPermissionType.ALLOW),
                acl(ResourceType.TOPIC, PatternType.LITERAL, "pre-b", "*", AclOperation.ALL, AclPermissionType.DENY))).all().get());
            attempt("no principal", () -> admin.createAcls(List.of(new AclBinding(new ResourcePattern(ResourceType.TOPIC, "x", PatternType.LITERAL), new AccessControlEntry("ann", "*", AclOperation.READ, AclPermissionType.ALLOW)))).all().get());
            attempt("a cluster by another name", () -> admin.createAcls(List.of(new AclBinding(new ResourcePattern(ResourceType.CLUSTER, "x", PatternType.LITERAL), new AccessControlEntry("User:ann", "*", AclOperation.READ, AclPermissionType.ALLOW)))).all().get());
            attempt("settled", () -> {
                Thread.sleep(1000);
                return produce(as("PLAIN", "admin", "admin-secret"), "shut");
            });
            attempt("described acls", () -> admin.describeAcls(AclBindingFilter.ANY).values().get().size());
            attempt("matching acls", () -> admin.describeAcls(new AclBindingFilter(new ResourcePatternFilter(ResourceType.TOPIC, "pre-b", PatternType.MATCH), AccessControlEntryFilter.ANY)).values().get().size());
        }
        attempt("wrong password", () -> produce(as("SCRAM-SHA-256", "ann", "wrong"), "open"));
        attempt("nobody", () -> produce(as("SCRAM-SHA-256", "nobody", "ann-secret"), "open"));
        attempt("produce", () -> produce(as("SCRAM-SHA-256", "ann", "ann-secret"), "open"));
        attempt("produce 512", () -> produce(as("SCRAM-SHA-512", "ann", "ann-secret"), "open"));
        attempt("produce by prefix", () -> produce(as("SCRAM-SHA-256", "ann", "ann-secret"), "pre-a"));
        attempt("produce denied by name", () -> produce(as("SCRAM-SHA-256", "ann", "ann-secret"), "pre-b"));
        attempt("produce shut", () -> produce(as("SCRAM-SHA-256", "ann", "ann-secret"), "shut"));
        attempt("produce seen", () -> produce(as("SCRAM-SHA-256", "ann", "ann-secret"), "seen"));
        attempt("produce to nothing", () -> produce(as("SCRAM-SHA-256", "ann", "ann-secret"), "never"));
        attempt("consume", () -> consume(as("SCRAM-SHA-512", "ann", "ann-secret"), "mine", "open"));
        attempt("consume shut", () -> consume(as("SCRAM-SHA-512", "ann", "ann-secret"), "mine", "shut"));
        attempt("consume seen", () -> consume(as("SCRAM-SHA-512", "ann", "ann-secret"), "mine", "seen"));
        attempt("consume as others", () -> consume(as("SCRAM-SHA-512", "ann", "ann-secret"), "theirs", "open"));
        for (String id : List.of("txn", "other"))
            attempt("transaction " + id, () -> {
                Properties about = data(as("SCRAM-SHA-256", "ann", "ann-secret"));
                about.put("transactional.id", id);
                try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(about)) {
                    producer.initTransactions();
                    producer.beginTransaction();
                    producer.send(new ProducerRecord<>("open", "v".getBytes())).get();
                    producer.commitTransaction();
                    return "done";
                }
            });
        try (Admin ann = Admin.create(as("SCRAM-SHA-256", "ann", "ann-secret"))) {
            attempt("list topics", () -> sorted(ann.listTopics().names().get()));
            attempt("describe open", () -> ann.describeTopics(List.of("open"), new DescribeTopicsOptions().includeAuthorizedOperations(true)).allTopicNames().get().get("open").authorizedOperations().stream().map(Object::toString).sorted().toList());
            attempt("describe shut", () -> ann.describeTopics(List.of("shut")).allTopicNames().get());
            attempt("describe never", () -> ann.describeTopics(List.of("never")).allTopicNames().get());
            attempt("create", () -> ann.createTopics(List.of(new NewTopic("mine", 1, (short) 1))).all().get());
            attempt("create by prefix", () -> ann.createTopics(List.of(new NewTopic("pre-new", 1, (short) 1))).all().get());
            attempt("delete shut", () -> ann.deleteTopics(List.of("shut")).all().get());
            attempt("delete seen", () -> ann.deleteTopics(List.of("seen")).all().get());
            attempt("delete never", () -> ann.deleteTopics(List.of("never")).all().get());
            attempt("partitions", () -> ann.createPartitions(Map.of("open", NewPartitions.increaseTo(2))).all().get());
            attempt("partitions by prefix", () -> ann.createPartitions(Map.of("pre-a", NewPartitions.increaseTo(2))).all().get());
            attempt("delete records", () -> ann.deleteRecords(Map.of(new TopicPartition("open", 0), RecordsToDelete.beforeOffset(1))).all().get());
            attempt("offsets", () -> ann.listOffsets(Map.of(new TopicPartition("shut", 0), OffsetSpec.latest())).all().get());
            attempt("topic settings", () -> ann.describeConfigs(List.of(new ConfigResource(ConfigResource.Type.TOPIC, "open"))).all().get());
            attempt("broker settings", () -> ann.describeConfigs(List.of(new ConfigResource(ConfigResource.Type.BROKER, "1"))).all().get());
            attempt("alter settings", () -> ann.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.TOPIC, "open"), List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "1000"), AlterConfigOp.OpType.SET)))).all().get());
            attempt("alter settings by prefix", () -> ann.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.TOPIC, "pre-a"), List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "100000"), AlterConfigOp.OpType.SET)))).all().get());
            attempt("list groups", () -> sorted(ann.listGroups().all().get().stream().map(GroupListing::groupId).toList()));
            attempt("describe group", () -> ann.describeConsumerGroups(List.of("mine"), new DescribeConsumerGroupsOptions().includeAuthorizedOperations(true)).all().get().get("mine").authorizedOperations().stream().map(Object::toString).sorted().toList());
            attempt("describe other group", () -> ann.describeConsumerGroups(List.of("theirs")).all().get());
            attempt("group offsets", () -> ann.listConsumerGroupOffsets("mine").partitionsToOffsetAndMetadata().get().size());
            attempt("other group offsets", () -> ann.listConsumerGroupOffsets("theirs").partitionsToOffsetAndMetadata().get());
            attempt("alter offsets", () -> ann.alterConsumerGroupOffsets("mine", Map.of(new TopicPartition("shut", 0), new OffsetAndMetadata(0))).all().get());
            attempt("delete offsets", () -> ann.deleteConsumerGroupOffsets("mine", Set.of(new TopicPartition("open", 0))).all().get());
            attempt("delete group", () -> ann.deleteConsumerGroups(List.of("mine")).all().get());
            attempt("cluster", () -> ann.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true)).authorizedOperations().get());
            attempt("log dirs", () -> ann.describeLogDirs(List.of(1)).allDescriptions().get().size());
            attempt("describe acls", () -> ann.describeAcls(AclBindingFilter.ANY).values().get());
            attempt("create acls", () -> ann.createAcls(List.of(allow(ResourceType.TOPIC, "shut", AclOperation.ALL))).all().get());
            attempt("delete acls", () -> ann.deleteAcls(List.of(AclBindingFilter.ANY)).all().get());
            attempt("describe users", () -> ann.describeUserScramCredentials().all().get());
            attempt("alter users", () -> ann.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion("ann", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "x"))).all().get());
            attempt("elect", () -> ann.electLeaders(ElectionType.PREFERRED, Set.of(new TopicPartition("open", 0))).all().get());
            attempt("reassign", () -> ann.alterPartitionReassignments(Map.of(new TopicPartition("open", 0), Optional.of(new NewPartitionReassignment(List.of(1))))).all().get());
            attempt("reassignments", () -> ann.listPartitionReassignments().reassignments().get());
            attempt("producers", () -> ann.describeProducers(List.of(new TopicPartition("shut", 0))).all().get());
            attempt("producers of open", () -> ann.describeProducers(List.of(new TopicPartition("open", 0))).all().get().size());
            attempt("list transactions", () -> sorted(ann.listTransactions().all().get().stream().map(TransactionListing::transactionalId).toList()));
            attempt("describe transaction", () -> ann.describeTransactions(List.of("txn")).all().get().size());
            attempt("describe other transaction", () -> ann.describeTransactions(List.of("other")).all().get());
        }
        try (Admin admin = Admin.create(as("PLAIN", "admin", "admin-secret"))) {
            attempt("deleted acls", () -> admin.deleteAcls(List.of(AclBindingFilter.ANY)).all().get().size());
            attempt("acls left", () -> admin.describeAcls(AclBindingFilter.ANY).values().get().size());
            attempt("user gone", () -> admin.alterUserScramCredentials(List.of(new UserScramCredentialDeletion("ann", ScramMechanism.SCRAM_SHA_256))).all().get());
            attempt("user left", () -> admin.describeUserScramCredentials(List.of("ann")).all().get().get("ann").credentialInfos().size());
        }
    }
}
