// The Java client in groups of both protocols, and the tool kafka-consumer-groups, in one run:
//
//   java -cp 'JARS/*' Groups.java HOST:PORT UNIQUE
//
// What has to happen is waited for; anything else ends it with a stack trace. The output of the
// tool goes to stdout, between lines "== NAME", for the test to read.

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.tools.consumer.group.ConsumerGroupCommand;

public class Groups {
    static final int PARTITIONS = 4;
    static final long PATIENCE_MS = 150_000;
    static String server;
    static String unique;

    public static void main(String[] arguments) throws Exception {
        server = arguments[0];
        unique = arguments[1];
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", server))) {
            for (String name : List.of(unique, unique + "-other")) {
                admin.createTopics(List.of(new NewTopic(name, PARTITIONS, (short) 1))).all().get();
            }
            produce(40);
            shareAndCommit(admin);
            comeBack();
            readByPattern(admin);
            upgrade(admin);
            configure(admin);
        }
        System.out.println("== end");
    }

    static void produce(int count) {
        Map<String, Object> how = Map.of("bootstrap.servers", server);
        StringSerializer text = new StringSerializer();
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(how, text, text)) {
            for (int number = 0; number < count; number++) {
                producer.send(new ProducerRecord<>(unique, "key-" + number, "value-" + number));
            }
            producer.flush();
        }
    }

    /** Two members of the consumer protocol; what the tool says of them, and does afterwards. */
    static void shareAndCommit(Admin admin) throws Exception {
        String group = unique + "-new";
        Map<String, Object> range = Map.of("group.remote.assignor", "range");
        KafkaConsumer<String, String> one = member(group, "consumer", range);
        one.subscribe(List.of(unique));
        waitForShares(List.of(one), 4);
        KafkaConsumer<String, String> two = member(group, "consumer", range);
        two.subscribe(List.of(unique));
        waitForShares(List.of(one, two), 2, 2);
        TopicPartition mine = one.assignment().iterator().next();
        one.commitSync(Map.of(mine, new OffsetAndMetadata(3, "a note")));
        OffsetAndMetadata committed = one.committed(Set.of(mine)).get(mine);
        check(committed.offset() == 3 && committed.metadata().equals("a note"), "the commit");
        tool("list", "--list", "--state", "--type");
        tool("members", "--describe", "--group", group, "--members", "--verbose");
        tool("state", "--describe", "--group", group, "--state");
        tool("lag", "--describe", "--group", group);
        one.close();
        waitForShares(List.of(two), 4);
        two.close();
        tool("reset", "--reset-offsets", "--group", group, "--topic", unique, "--to-earliest", "--execute");
        var offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        check(offsets.size() == PARTITIONS, "offsets of all partitions");
        check(offsets.values().stream().allMatch(offset -> offset.offset() == 0), "from the start");
        tool("delete offsets", "--delete-offsets", "--group", group, "--topic", unique);
        offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        check(offsets.isEmpty(), "no offsets");
        tool("delete", "--delete", "--group", group);
        check(admin.listGroups().all().get().stream().noneMatch(listed -> listed.groupId().equals(group)), "gone");
    }

    /** A static member leaves without a word of good-bye, and finds its partitions again. */
    static void comeBack() {
        String group = unique + "-static";
        KafkaConsumer<String, String> other = member(group, "consumer", Map.of());
        other.subscribe(List.of(unique));
        Map<String, Object> here = Map.of("group.instance.id", "here");
        KafkaConsumer<String, String> first = member(group, "consumer", here);
        first.subscribe(List.of(unique));
        waitForShares(List.of(other, first), 2, 2);
        Set<TopicPartition> before = Set.copyOf(first.assignment());
        first.close();
        KafkaConsumer<String, String> again = member(group, "consumer", here);
        again.subscribe(List.of(unique));
        waitForShares(List.of(other, again), 2, 2);
        check(again.assignment().equals(before), "the same partitions");
        other.close();
        again.close();
    }

    static void readByPattern(Admin admin) throws Exception {
        KafkaConsumer<String, String> consumer = member(unique + "-pattern", "consumer", Map.of());
        consumer.subscribe(new SubscriptionPattern(unique + "(-later)?"));
        waitForShares(List.of(consumer), 4);
        NewTopic later = new NewTopic(unique + "-later", PARTITIONS, (short) 1);
        admin.createTopics(List.of(later)).all().get();
        waitForShares(List.of(consumer), 8);
        consumer.close();
    }

    /** From the classic protocol to the new one and back, with members of both in one group. */
    static void upgrade(Admin admin) throws Exception {
        String group = unique + "-upgrade";
        for (String strategy : List.of("RangeAssignor", "CooperativeStickyAssignor")) {
            Map<String, Object> old = Map.of(
                "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + strategy);
            KafkaConsumer<String, String> one = member(group, "classic", old);
            one.subscribe(List.of(unique));
            waitForShares(List.of(one), 4);
            KafkaConsumer<String, String> two = member(group, "consumer", Map.of());
            two.subscribe(List.of(unique));
            waitForShares(List.of(one, two), 2, 2);
            one.commitSync();
            two.commitSync();
            check(typeOf(admin, group).equals("Consumer"), "the new protocol");
            two.close();
            waitForShares(List.of(one), 4);
            check(typeOf(admin, group).equals("Classic"), "the classic protocol");
            one.commitSync();
            one.close();
        }
    }

    static void configure(Admin admin) throws Exception {
        String name = "consumer.session.timeout.ms";
        ConfigResource group = new ConfigResource(ConfigResource.Type.GROUP, unique);
        AlterConfigOp change = new AlterConfigOp(new ConfigEntry(name, "50000"), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(group, List.of(change))).all().get();
        ConfigEntry entry = admin.describeConfigs(List.of(group)).all().get().get(group).get(name);
        check(entry.value().equals("50000"), "the setting of a group");
        check(entry.source() == ConfigEntry.ConfigSource.DYNAMIC_GROUP_CONFIG, "where it comes from");
    }

    static String typeOf(Admin admin, String group) throws Exception {
        return admin.describeConsumerGroups(List.of(group)).all().get().get(group).type().toString();
    }

    static KafkaConsumer<String, String> member(String group, String protocol, Map<String, Object> more) {
        Map<String, Object> how = new HashMap<>(more);
        how.put("bootstrap.servers", server);
        how.put("group.id", group);
        how.put("group.protocol", protocol);
        how.put("auto.offset.reset", "earliest");
        how.put("enable.auto.commit", false);
        if (protocol.equals("classic")) {
            how.put("heartbeat.interval.ms", 100);
        }
        return new KafkaConsumer<>(how, new StringDeserializer(), new StringDeserializer());
    }

    static void waitForShares(List<KafkaConsumer<String, String>> members, Integer... sizes) {
        long end = System.currentTimeMillis() + PATIENCE_MS;
        while (true) {
            List<Integer> found = new ArrayList<>();
            Set<String> all = new TreeSet<>();
            for (KafkaConsumer<String, String> one : members) {
                one.poll(Duration.ofMillis(20));
                found.add(one.assignment().size());
                one.assignment().forEach(place -> all.add(place.toString()));
            }
            if (found.equals(List.of(sizes)) && all.size() == found.stream().mapToInt(size -> size).sum()) {
                members.forEach(one -> one.poll(Duration.ofMillis(200))); // it finishes what it has begun
                return;
            }
            check(System.currentTimeMillis() < end, "shares of " + List.of(sizes) + ", not " + found);
        }
    }

    static void tool(String name, String... arguments) {
        System.out.println("== " + name);
        List<String> all = new ArrayList<>(List.of("--bootstrap-server", server));
        all.addAll(List.of(arguments));
        ConsumerGroupCommand.main(all.toArray(new String[0]));
        System.out.flush();
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
