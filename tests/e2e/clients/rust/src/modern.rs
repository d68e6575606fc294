//! MQTT 5.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rumqttc::v5::mqttbytes::qos;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, PublishProperties, SubscribeReasonCode};
use rumqttc::v5::{Client as Rumqttc, Connection, Event, MqttOptions, RecvTimeoutError};
use rumqttc::Outgoing;
use serde_json::{json, Value};

use crate::{bytes_of, hex_of, qos_of, say, text_of, Client, Reader};
use crate::{LOOK, PACKET_SIZE_MAX, REQUESTS_MAX};

struct Modern(Rumqttc);

impl Client for Modern {
    fn subscribe(&self, filter: &str, level: u8) {
        self.0.subscribe(filter, qos(level).expect("qos")).expect("a connection");
    }

    fn publish(&self, asked: &Value) {
        let said = |name: &str| Some(text_of(asked, name)).filter(|text| !text.is_empty());
        let pairs = asked["user"].as_array().expect("user");
        let properties = PublishProperties {
            response_topic: said("response"),
            correlation_data: said("correlation").map(|_| bytes_of(&asked["correlation"]).into()),
            content_type: said("type"),
            user_properties: pairs
                .iter()
                .map(|pair| {
                    let text = |at: usize| pair[at].as_str().expect("a pair").to_string();
                    (text(0), text(1))
                })
                .collect(),
            ..PublishProperties::default()
        };
        self.0
            .publish_with_properties(
                text_of(asked, "topic"),
                qos(qos_of(asked)).expect("qos"),
                asked["retain"] == true,
                bytes_of(&asked["payload"]),
                properties,
            )
            .expect("a connection");
    }

    fn disconnect(&self) {
        self.0.disconnect().expect("a connection");
    }
}

pub fn connect(host: &str, port: u16, asked: &Value) -> (Box<dyn Client>, Reader) {
    let mut options = MqttOptions::new(text_of(asked, "id"), host, port);
    let clean = asked["clean"] == true;
    options.set_clean_start(clean);
    options.set_session_expiry_interval(Some(if clean { 0 } else { 3600 }));
    options.set_keep_alive(Duration::from_secs(60));
    options.set_max_packet_size(Some(PACKET_SIZE_MAX));
    let will = &asked["will"];
    if !will.is_null() {
        options.set_last_will(LastWill::new(
            text_of(will, "topic"),
            bytes_of(&will["payload"]),
            qos(qos_of(will)).expect("qos"),
            will["retain"] == true,
            None,
        ));
    }
    let (client, connection) = Rumqttc::new(options, REQUESTS_MAX);
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    let thread = thread::spawn(move || read(connection, &told));
    (Box::new(Modern(client)), Reader { ended, thread })
}

fn read(mut connection: Connection, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        match connection.recv_timeout(LOOK) {
            Ok(Ok(Event::Incoming(packet))) => arrived(packet),
            Ok(Ok(Event::Outgoing(Outgoing::Publish(0)))) => say(json!({"is": "published"})),
            Ok(Ok(Event::Outgoing(Outgoing::Disconnect))) => return,
            Ok(Ok(_)) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Err(error)) => panic!("{error}"),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn arrived(packet: Packet) {
    match packet {
        Packet::ConnAck(_) => say(json!({"is": "connected"})),
        Packet::SubAck(suback) => {
            let granted: Vec<u8> = suback
                .return_codes
                .iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(level) => *level as u8,
                    _ => 0x80,
                })
                .collect();
            say(json!({"is": "subscribed", "qos": granted}));
        }
        Packet::PubAck(_) | Packet::PubComp(_) => say(json!({"is": "published"})),
        Packet::Publish(publish) => {
            let said = publish.properties.unwrap_or_default();
            say(json!({
                "is": "message",
                "topic": String::from_utf8_lossy(&publish.topic),
                "payload": hex_of(&publish.payload),
                "qos": publish.qos as u8,
                "retain": publish.retain,
                "user": said.user_properties,
                "response": said.response_topic.unwrap_or_default(),
                "correlation": hex_of(&said.correlation_data.unwrap_or_default()),
                "type": said.content_type.unwrap_or_default(),
            }));
        }
        _ => {}
    }
}
