// paho's two clients for Java against one server: java -cp 'JARS/*' Paho.java HOST:PORT PREFIX
//
// One run for all, because a JVM takes its time: what holds is printed, a line each, and what
// does not ends the program with an exception. `Old` speaks MQTT 3.1.1, `Modern` MQTT 5.

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.eclipse.paho.client.mqttv3.IMqttDeliveryToken;
import org.eclipse.paho.client.mqttv3.MqttCallback;
import org.eclipse.paho.client.mqttv3.MqttConnectOptions;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;
import org.eclipse.paho.mqttv5.client.IMqttToken;
import org.eclipse.paho.mqttv5.client.MqttConnectionOptions;
import org.eclipse.paho.mqttv5.client.MqttDisconnectResponse;
import org.eclipse.paho.mqttv5.common.MqttException;
import org.eclipse.paho.mqttv5.common.MqttMessage;
import org.eclipse.paho.mqttv5.common.packet.MqttProperties;
import org.eclipse.paho.mqttv5.common.packet.UserProperty;

public class Paho {
  static final int PATIENCE_S = 120;
  static String url;

  record Arrived(String topic, byte[] payload, int qos, boolean retained, MqttProperties said) {}

  /** A client of either version; `arrived` is what it got. */
  interface Client {
    BlockingQueue<Arrived> arrived();

    boolean connect(String id, boolean clean, String will) throws Exception;

    void subscribe(String filter, int qos) throws Exception;

    void publish(String topic, byte[] payload, int qos, boolean retained) throws Exception;

    void leave() throws Exception;

    void cut() throws Exception;
  }

  static class Old implements Client, MqttCallback {
    private final BlockingQueue<Arrived> arrived = new LinkedBlockingQueue<>();
    private org.eclipse.paho.client.mqttv3.MqttClient client;

    public BlockingQueue<Arrived> arrived() {
      return arrived;
    }

    public boolean connect(String id, boolean clean, String will) throws Exception {
      client = new org.eclipse.paho.client.mqttv3.MqttClient(url, id, new MemoryPersistence());
      client.setCallback(this);
      var options = new MqttConnectOptions();
      options.setMqttVersion(MqttConnectOptions.MQTT_VERSION_3_1_1);
      options.setCleanSession(clean);
      if (will != null) options.setWill(will, bytes("gone"), 1, false);
      return client.connectWithResult(options).getSessionPresent();
    }

    public void subscribe(String filter, int qos) throws Exception {
      client.subscribe(filter, qos);
    }

    public void publish(String topic, byte[] payload, int qos, boolean retained) throws Exception {
      client.publish(topic, payload, qos, retained);
    }

    public void leave() throws Exception {
      client.disconnect();
      client.close();
    }

    public void cut() throws Exception {
      client.disconnectForcibly(0, 0, false);
      client.close();
    }

    public void connectionLost(Throwable cause) {}

    public void messageArrived(String topic, org.eclipse.paho.client.mqttv3.MqttMessage message) {
      arrived.add(
          new Arrived(topic, message.getPayload(), message.getQos(), message.isRetained(), null));
    }

    public void deliveryComplete(IMqttDeliveryToken token) {}
  }

  static class Modern implements Client, org.eclipse.paho.mqttv5.client.MqttCallback {
    private final BlockingQueue<Arrived> arrived = new LinkedBlockingQueue<>();
    private org.eclipse.paho.mqttv5.client.MqttClient client;

    public BlockingQueue<Arrived> arrived() {
      return arrived;
    }

    public boolean connect(String id, boolean clean, String will) throws Exception {
      var kept = new org.eclipse.paho.mqttv5.client.persist.MemoryPersistence();
      client = new org.eclipse.paho.mqttv5.client.MqttClient(url, id, kept);
      client.setCallback(this);
      var options = new MqttConnectionOptions();
      options.setCleanStart(clean);
      options.setSessionExpiryInterval(clean ? 0L : 3600L);
      if (will != null) options.setWill(will, new MqttMessage(bytes("gone"), 1, false, null));
      return client.connectWithResult(options).getSessionPresent();
    }

    public void subscribe(String filter, int qos) throws Exception {
      client.subscribe(filter, qos);
    }

    public void publish(String topic, byte[] payload, int qos, boolean retained) throws Exception {
      var said = new MqttProperties();
      said.setContentType("text/plain");
      said.setResponseTopic(topic + "/answer");
      said.setCorrelationData(bytes("7"));
      said.setUserProperties(List.of(new UserProperty("a", "1"), new UserProperty("a", "2")));
      client.publish(topic, new MqttMessage(payload, qos, retained, said));
    }

    public void leave() throws Exception {
      client.disconnect();
      client.close();
    }

    public void cut() throws Exception {
      client.disconnectForcibly(0, 0, false);
      client.close();
    }

    public void disconnected(MqttDisconnectResponse response) {}

    public void mqttErrorOccurred(MqttException exception) {}

    public void messageArrived(String topic, MqttMessage message) {
      arrived.add(
          new Arrived(
              topic,
              message.getPayload(),
              message.getQos(),
              message.isRetained(),
              message.getProperties()));
    }

    public void deliveryComplete(IMqttToken token) {}

    public void connectComplete(boolean reconnect, String server) {}

    public void authPacketArrived(int reasonCode, MqttProperties properties) {}
  }

  static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  static void hold(boolean is, Object what) {
    if (!is) throw new AssertionError(what);
  }

  static Arrived next(Client client) throws Exception {
    var arrived = client.arrived().poll(PATIENCE_S, TimeUnit.SECONDS);
    hold(arrived != null, "nothing came");
    return arrived;
  }

  static void messagesComeAsTheyWereSent(Supplier<Client> kind, String topic) throws Exception {
    var client = kind.get();
    client.connect(topic, true, null);
    client.subscribe(topic + "/#", 2);
    var large = new byte[1 << 20];
    Arrays.fill(large, (byte) 0xe9);
    for (var payload : List.of(new byte[0], bytes("21 °C"), large))
      for (int qos = 0; qos < 3; qos++) {
        client.publish(topic + "/" + qos, payload, qos, false);
        var came = next(client);
        hold(came.topic.equals(topic + "/" + qos) && came.qos == qos && !came.retained, came);
        hold(Arrays.equals(came.payload, payload), came);
        if (came.said == null) continue;
        hold(came.said.getContentType().equals("text/plain"), came.said);
        hold(came.said.getResponseTopic().equals(came.topic + "/answer"), came.said);
        hold(Arrays.equals(came.said.getCorrelationData(), bytes("7")), came.said);
        var pairs = came.said.getUserProperties();
        hold(pairs.size() == 2 && pairs.get(1).getValue().equals("2"), pairs);
      }
    client.leave();
  }

  static void aNewSubscriberGetsWhatIsRetained(Supplier<Client> kind, String topic)
      throws Exception {
    var client = kind.get();
    client.connect(topic, true, null);
    client.publish(topic, bytes("kept"), 1, true);
    client.subscribe(topic + "/#", 1);
    hold(next(client).retained, "not marked as retained");
    client.publish(topic, new byte[0], 1, true);
    client.leave();
  }

  static void aSessionKeepsWhatCameMeanwhile(Supplier<Client> kind, String topic)
      throws Exception {
    var client = kind.get();
    hold(!client.connect(topic, false, null), "there was a session");
    client.subscribe(topic, 2);
    client.leave();
    var other = kind.get();
    other.connect(topic + "-other", true, null);
    for (int number = 0; number < 100; number++)
      other.publish(topic, bytes("" + number), 2, false);
    other.leave();
    hold(client.connect(topic, false, null), "there is no session");
    for (int number = 0; number < 100; number++) {
      var came = next(client);
      hold(new String(came.payload, StandardCharsets.UTF_8).equals("" + number), came);
      hold(came.qos == 2, came);
    }
    client.leave();
  }

  static void aWillIsSentForWhoIsGone(Supplier<Client> kind, String topic) throws Exception {
    var watcher = kind.get();
    watcher.connect(topic + "-watcher", true, null);
    watcher.subscribe(topic, 1);
    var client = kind.get();
    client.connect(topic, true, topic);
    client.cut();
    hold(Arrays.equals(next(watcher).payload, bytes("gone")), "another message");
    watcher.leave();
  }

  interface Check {
    void run(Supplier<Client> kind, String topic) throws Exception;
  }

  static void show(String name, Check check, String prefix) throws Exception {
    for (var version : List.of("3.1.1", "5")) {
      Supplier<Client> kind = version.equals("5") ? Modern::new : Old::new;
      check.run(kind, prefix + "/" + name + "/" + version);
      System.out.println(version + " " + name);
    }
  }

  public static void main(String[] arguments) throws Exception {
    url = "tcp://" + arguments[0];
    var prefix = arguments[1];
    try {
      show("messages", Paho::messagesComeAsTheyWereSent, prefix);
      show("retained", Paho::aNewSubscriberGetsWhatIsRetained, prefix);
      show("session", Paho::aSessionKeepsWhatCameMeanwhile, prefix);
      show("will", Paho::aWillIsSentForWhoIsGone, prefix);
    } catch (Exception | AssertionError error) {
      error.printStackTrace();
      System.exit(1);
    }
    System.exit(0); // threads of a connection may linger
  }
}
