// How a Java client logs in otherwise than by a password sent once: by delegation tokens, again
// and again while it is connected, and over TLS; what it is told where it may not. One line of
// `name=result` for each attempt. The same program runs against Isthmus and Apache Kafka.
//
//   java -cp 'kafka/*' Logins.java HOST:PORT [HOST:PORT HOST:PORT CA.pem]
//
// The second address wants a login every two seconds, the third is SASL_SSL. `admin` (password
// `admin-secret`) is a super user, all others are made here.

import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.resource.*;
import org.apache.kafka.common.security.auth.KafkaPrincipal;
import org.apache.kafka.common.security.token.delegation.*;
import org.apache.kafka.common.serialization.*;

public class Logins {
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

    static Properties as(String mechanism, String user, String password, String more) {
        Properties about = new Properties();
        about.put("bootstrap.servers", broker);
        about.put("security.protocol", "SASL_PLAINTEXT");
        about.put("sasl.mechanism", mechanism);
        about.put("sasl.jaas.config", "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"" + user + "\" password=\"" + password + "\"" + more + ";");
        about.put("request.timeout.ms", "60000");
        about.put("default.api.timeout.ms", "60000");
        about.put("max.block.ms", "60000");
        about.put("key.serializer", ByteArraySerializer.class.getName());
        about.put("value.serializer", ByteArraySerializer.class.getName());
        return about;
    }

    static Properties as(String user) {
        return as("SCRAM-SHA-256", user, user + "-secret", "");
    }

    static Properties by(DelegationToken token, String mechanism) {
        return as(mechanism, token.tokenInfo().tokenId(), token.hmacAsBase64String(), " tokenauth=\"true\"");
    }

    static Object produce(Properties about) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(about)) {
            return producer.send(new ProducerRecord<>("t", 0, null, "v".getBytes())).get().offset();
        }
    }

    static KafkaPrincipal user(String name) {
        return new KafkaPrincipal("User", name);
    }

    static DelegationToken create(Admin admin, CreateDelegationTokenOptions options) throws Exception {
        DelegationToken token = admin.createDelegationToken(options).delegationToken().get();
        KafkaFuture<List<DelegationToken>> seen;
        do {  // the broker hears of it from its controller
            seen = admin.describeDelegationToken().delegationTokens();
        } while (seen.get().stream().noneMatch(one -> one.tokenInfo().tokenId().equals(token.tokenInfo().tokenId())));
        return token;
    }

    static String told(DelegationToken token) {
        TokenInformation about = token.tokenInfo();
        long now = about.issueTimestamp();
        return about.owner() + " " + about.tokenRequester() + " " + about.renewers() + " "
            + (about.expiryTimestamp() - now) + " " + (about.maxTimestamp() - now) + " "
            + about.tokenId().length() + " " + token.hmac().length;
    }

    static String seen(Admin admin, String... owners) throws Exception {
        DescribeDelegationTokenOptions options = new DescribeDelegationTokenOptions();
        if (owners.length > 0) options.owners(Stream.of(owners).map(Logins::user).toList());
        return admin.describeDelegationToken(options).delegationTokens().get().stream()
            .map(one -> one.tokenInfo().owner().getName()).sorted().toList().toString();
    }

    static long hours(long timestamp) {
        return Math.round((timestamp - System.currentTimeMillis()) / 3600000.0);
    }

    static long renew(Admin admin, byte[] hmac, long period) throws Exception {
        return hours(admin.renewDelegationToken(hmac, new RenewDelegationTokenOptions().renewTimePeriodMs(period)).expiryTimestamp().get());
    }

    static long expire(Admin admin, byte[] hmac, long period) throws Exception {
        return hours(admin.expireDelegationToken(hmac, new ExpireDelegationTokenOptions().expiryTimePeriodMs(period)).expiryTimestamp().get());
    }

    static AclBinding allow(String user, ResourceType type, String name, AclOperation operation) {
        return new AclBinding(new ResourcePattern(type, name, PatternType.LITERAL), new AccessControlEntry("User:" + user, "*", operation, AclPermissionType.ALLOW));
    }

    static void prepare(Admin admin) throws Exception {
        List<UserScramCredentialAlteration> users = new ArrayList<>();
        for (String name : List.of("ann", "bob", "eve"))
            users.add(new UserScramCredentialUpsertion(name, new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), name + "-secret"));
        admin.alterUserScramCredentials(users).all().get();
        admin.createTopics(List.of(new NewTopic("t", 1, (short) 1))).all().get();
        admin.createAcls(List.of(
            allow("ann", ResourceType.TOPIC, "t", AclOperation.WRITE),
            allow("ann", ResourceType.USER, "User:bob", AclOperation.CREATE_TOKENS),
            allow("eve", ResourceType.USER, "User:bob", AclOperation.DESCRIBE_TOKENS))).all().get();
        while (admin.describeAcls(AclBindingFilter.ANY).values().get().size() < 3) Thread.sleep(50);
    }

    static void tokens() throws Exception {
        try (Admin admin = Admin.create(as("admin"))) {
            prepare(admin);
        }
        try (Admin ann = Admin.create(as("ann")); Admin bob = Admin.create(as("bob")); Admin eve = Admin.create(as("eve"))) {
            DelegationToken own = create(ann, new CreateDelegationTokenOptions().renewers(List.of(user("bob"))));
            DelegationToken bobs = create(ann, new CreateDelegationTokenOptions().owner(user("bob")).maxLifetimeMs(3600000));
            attempt("own token", () -> told(own));
            attempt("token for another", () -> told(bobs));
            attempt("token for a third", () -> told(create(ann, new CreateDelegationTokenOptions().owner(user("eve")))));
            attempt("renewer that is a group", () -> told(create(ann, new CreateDelegationTokenOptions().renewers(List.of(new KafkaPrincipal("Group", "g"))))));
            attempt("produce by token", () -> produce(by(own, "SCRAM-SHA-256")));
            attempt("produce by token 512", () -> produce(by(own, "SCRAM-SHA-512")));
            attempt("produce by token of bob", () -> produce(by(bobs, "SCRAM-SHA-256")));
            attempt("wrong hmac", () -> produce(by(new DelegationToken(own.tokenInfo(), new byte[64]), "SCRAM-SHA-256")));
            attempt("token as a user", () -> produce(as("SCRAM-SHA-256", own.tokenInfo().tokenId(), own.hmacAsBase64String(), "")));
            try (Admin token = Admin.create(by(own, "SCRAM-SHA-256"))) {
                attempt("create by token", () -> told(create(token, new CreateDelegationTokenOptions())));
                attempt("describe by token", () -> seen(token));
                attempt("renew by token", () -> renew(token, own.hmac(), -1));
                attempt("expire by token", () -> expire(token, own.hmac(), -1));
            }
            attempt("ann sees", () -> seen(ann));
            attempt("bob sees", () -> seen(bob));
            attempt("eve sees", () -> seen(eve));
            attempt("ann sees of bob", () -> seen(ann, "bob"));
            attempt("ann sees of eve", () -> seen(ann, "eve"));
            attempt("renew by renewer", () -> renew(bob, own.hmac(), 7200000));
            attempt("renew by requester", () -> renew(ann, bobs.hmac(), -1));
            attempt("renew by another", () -> renew(eve, own.hmac(), -1));
            attempt("renew beyond the end", () -> renew(bob, bobs.hmac(), 7200000) < 2);
            attempt("renew nothing", () -> renew(ann, new byte[64], -1));
            attempt("expire later", () -> expire(ann, own.hmac(), 3600000));
            attempt("expire by another", () -> expire(eve, own.hmac(), -1));
            attempt("expire nothing", () -> expire(ann, new byte[64], -1));
            attempt("expire now", () -> expire(ann, own.hmac(), -1));
            while (seen(ann).contains("ann")) Thread.sleep(20);
            attempt("produce by ended token", () -> produce(by(own, "SCRAM-SHA-256")));
            DelegationToken brief = create(ann, new CreateDelegationTokenOptions().maxLifetimeMs(200));
            Thread.sleep(300);
            attempt("renew expired", () -> renew(ann, brief.hmac(), -1));
            attempt("expire expired", () -> expire(ann, brief.hmac(), -1));
            attempt("produce by expired token", () -> produce(by(brief, "SCRAM-SHA-256")));
        }
    }

    static double total(Producer<byte[], byte[]> producer, String name) {
        return producer.metrics().entrySet().stream()
            .filter(one -> one.getKey().name().equals(name) && one.getKey().group().equals("producer-metrics"))
            .mapToDouble(one -> (Double) one.getValue().metricValue()).sum();
    }

    // A producer stays connected over the end of its session, and logs in again by itself.
    static Object again(Properties about, String address) throws Exception {
        about.put("bootstrap.servers", address);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(about)) {
            do {
                producer.send(new ProducerRecord<>("t", 0, null, "v".getBytes())).get();
                Thread.sleep(100);
            } while (total(producer, "successful-reauthentication-total") < 2);
            return total(producer, "failed-reauthentication-total") + " " + total(producer, "failed-authentication-total");
        }
    }

    static Properties encrypted(Properties about, String address, String ca) {
        about.put("bootstrap.servers", address);
        about.put("security.protocol", "SASL_SSL");
        about.put("ssl.truststore.type", "PEM");
        about.put("ssl.truststore.location", ca);
        return about;
    }

    public static void main(String[] arguments) throws Exception {
        broker = arguments[0];
        tokens();
        if (arguments.length > 1) {
            attempt("again and again", () -> again(as("ann"), arguments[1]));
            attempt("over TLS", () -> produce(encrypted(as("ann"), arguments[2], arguments[3])) != null);
            attempt("over TLS with a wrong password", () -> produce(encrypted(as("SCRAM-SHA-256", "ann", "wrong", ""), arguments[2], arguments[3])));
            Properties strangers = encrypted(as("ann"), arguments[2], arguments[3]);
            strangers.remove("ssl.truststore.location");
            strangers.remove("ssl.truststore.type");
            attempt("over TLS with nobody trusted", () -> produce(strangers));
        }
        System.exit(0);
    }
}
