// The Java client in share groups, and its tools, in one run:
//
//   java -cp 'JARS/*' Shares.java HOST:PORT UNIQUE
//
// What has to happen is waited for; anything else ends it with a stack trace. The output of the
// tools goes to stdout, between lines "== NAME", for the test to read.

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.tools.consumer.ConsoleShareConsumer;
import org.apache.kafka.tools.consumer.group.ShareGroupCommand;

public class Shares {
    static final long PATIENCE_MS = 150_000;
    static String server;
    static String unique;

    public static void main(String[] arguments) throws Exception {
        server = arguments[0];
        unique = arguments[1];
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", server))) {
            for (String name : List.of(unique, unique + "-one")) {
                int partitions = name.equals(unique) ? 3 : 1;
                admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1))).all().get();
            }
            for (String group : List.of("-all", "-each", "-committed", "-console")) {
                set(admin, unique + group, "share.auto.offset.reset", "earliest");
            }
            set(admin, unique + "-committed", "share.isolation.level", "read_committed");
            workTogether(admin);
            sayOfEach();
            readCommitted();
            tools(admin);
        }
        System.out.println("== end");
        System.exit(0);
    }

    static void set(Admin admin, String group, String name, String value) throws Exception {
        ConfigResource of = new ConfigResource(ConfigResource.Type.GROUP, group);
        AlterConfigOp change = new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(of, List.of(change))).all().get();
    }

    static void produce(String name, String prefix, int count, Boolean commits) {
        Map<String, Object> how = new HashMap<>(Map.of("bootstrap.servers", server));
        if (commits != null) {
            how.put("transactional.id", unique + prefix);
        }
        StringSerializer text = new StringSerializer();
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(how, text, text)) {
            if (commits != null) {
                producer.initTransactions();
                producer.beginTransaction();
            }
            for (int number = 0; number < count; number++) {
                producer.send(new ProducerRecord<>(name, "key-" + number, prefix + number));
            }
            producer.flush();
            if (commits != null && commits) {
                producer.commitTransaction();
            } else if (commits != null) {
                producer.abortTransaction();
            }
        }
    }

    /** Two members get each record once between them; the more there are, the more they read. */
    static void workTogether(Admin admin) throws Exception {
        produce(unique, "all-", 300, null);
        List<KafkaShareConsumer<String, String>> members = new ArrayList<>();
        for (int number = 0; number < 2; number++) {
            members.add(member("-all", Map.of("max.poll.records", 20)));
        }
        members.forEach(one -> one.subscribe(List.of(unique)));
        Map<String, Integer> seen = new TreeMap<>();
        long end = System.currentTimeMillis() + PATIENCE_MS;
        while (seen.size() < 300) {
            for (KafkaShareConsumer<String, String> one : members) {
                one.poll(Duration.ofMillis(100)).forEach(record -> seen.merge(record.value(), 1, Integer::sum));
            }
            check(System.currentTimeMillis() < end, "all records, not " + seen.size());
        }
        check(seen.values().stream().allMatch(times -> times == 1), "each record once");
        members.forEach(one -> check(one.commitSync().values().stream().allMatch(error -> error.isEmpty()), "a commit"));
        tool("members", "--describe", "--group", unique + "-all", "--members");
        var described = admin.describeShareGroups(List.of(unique + "-all")).all().get().get(unique + "-all");
        check(described.members().size() == 2, "two members");
        members.forEach(KafkaShareConsumer::close);
    }

    /** One record is accepted, one released, one rejected, one held on to. */
    static void sayOfEach() {
        String name = unique + "-one";
        produce(name, "each-", 4, null);
        Map<String, Object> how = Map.of("share.acknowledgement.mode", "explicit");
        KafkaShareConsumer<String, String> member = member("-each", how);
        member.subscribe(List.of(name));
        List<ConsumerRecord<String, String>> first = poll(member, 4);
        check(first.stream().allMatch(record -> record.deliveryCount().get() == 1), "delivered first");
        member.acknowledge(first.get(0), AcknowledgeType.ACCEPT);
        member.acknowledge(first.get(1), AcknowledgeType.RELEASE);
        member.acknowledge(first.get(2), AcknowledgeType.REJECT);
        member.acknowledge(first.get(3), AcknowledgeType.RENEW);
        check(member.commitSync().values().stream().allMatch(error -> error.isEmpty()), "what was said");
        check(member.acquisitionLockTimeoutMs().get() == 30_000, "the time that a lock is held");
        Map<String, Integer> again = new TreeMap<>();
        long end = System.currentTimeMillis() + PATIENCE_MS;
        while (!again.containsKey("each-1")) {
            for (ConsumerRecord<String, String> record : member.poll(Duration.ofMillis(100))) {
                again.put(record.value(), (int) record.deliveryCount().get());
                member.acknowledge(record, AcknowledgeType.ACCEPT);
            }
            check(System.currentTimeMillis() < end, "the record that was released");
        }
        member.commitSync();
        check(again.get("each-1") == 2, "delivered a second time");
        check(!again.containsKey("each-0") && !again.containsKey("each-2"), "what is done with stays so");
        member.close();
    }

    /** A group that reads what is committed is not given what was aborted. */
    static void readCommitted() {
        String name = unique + "-one";
        produce(name, "no-", 5, false);
        produce(name, "yes-", 5, true);
        KafkaShareConsumer<String, String> member = member("-committed", Map.of());
        member.subscribe(List.of(name));
        TreeSet<String> seen = new TreeSet<>();
        poll(member, 9).forEach(record -> seen.add(record.value()));
        check(seen.size() == 9 && seen.stream().noneMatch(value -> value.startsWith("no-")), "only " + seen);
        member.close();
    }

    static void tools(Admin admin) throws Exception {
        String group = unique + "-all";
        tool("list", "--list", "--state");
        tool("state", "--describe", "--group", group, "--state");
        tool("offsets", "--describe", "--group", group, "--offsets");
        tool("reset", "--reset-offsets", "--group", group, "--topic", unique, "--to-earliest", "--execute");
        tool("after", "--describe", "--group", group, "--offsets");
        tool("delete offsets", "--delete-offsets", "--group", group, "--topic", unique);
        tool("delete", "--delete", "--group", group);
        check(admin.listGroups().all().get().stream().noneMatch(listed -> listed.groupId().equals(group)), "gone");
        System.out.println("== console");
        ConsoleShareConsumer.main(new String[] {
            "--bootstrap-server", server, "--topic", unique, "--group", unique + "-console", "--max-messages", "300",
        });
    }

    static List<ConsumerRecord<String, String>> poll(KafkaShareConsumer<String, String> member, int count) {
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        long end = System.currentTimeMillis() + PATIENCE_MS;
        while (found.size() < count) {
            member.poll(Duration.ofMillis(100)).forEach(found::add);
            check(System.currentTimeMillis() < end, count + " records, not " + found.size());
        }
        return found;
    }

    static KafkaShareConsumer<String, String> member(String group, Map<String, Object> more) {
        Map<String, Object> how = new HashMap<>(more);
        how.put("bootstrap.servers", server);
        how.put("group.id", unique + group);
        return new KafkaShareConsumer<>(how, new StringDeserializer(), new StringDeserializer());
    }

    static void tool(String name, String... arguments) {
        System.out.println("== " + name);
        List<String> all = new ArrayList<>(List.of("--bootstrap-server", server));
        all.addAll(List.of(arguments));
        ShareGroupCommand.main(all.toArray(new String[0]));
        System.out.flush();
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
