//! MQTT 3.1.1.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rumqttc::{
    qos, Client as Rumqttc, Connection, Event, LastWill, MqttOptions, Outgoing, Packet,
    RecvTimeoutError, SubscribeReasonCode,
};
use serde_json::{json, Value};

use crate::{bytes_of, hex_of, qos_of, say, text_of, Client, Reader};
use crate::{LOOK, PACKET_SIZE_MAX, REQUESTS_MAX};

struct Old(Rumqttc);

impl Client for Old {
    fn subscribe(&self, filter: &str, level: u8) {
        self.0.subscribe(filter, qos(level).expect("qos")).expect("a connection");
    }

    fn publish(&self, asked: &Value) {
        let level = qos(qos_of(asked)).expect("qos");
        let retain = asked["retain"] == true;
        self.0
            .publish(text_of(asked, "topic"), level, retain, bytes_of(&asked["payload"]))
            .expect("a connection");
    }

    fn disconnect(&self) {
        self.0.disconnect().expect("a connection");
    }
}

pub fn connect(host: &str, port: u16, asked: &Value) -> (Box<dyn Client>, Reader) {
    let mut options = MqttOptions::new(text_of(asked, "id"), host, port);
    options.set_clean_session(asked["clean"] == true);
    options.set_keep_alive(Duration::from_secs(60));
    options.set_max_packet_size(PACKET_SIZE_MAX as usize, PACKET_SIZE_MAX as usize);
    let will = &asked["will"];
    if !will.is_null() {
        options.set_last_will(LastWill::new(
            text_of(will, "topic"),
            bytes_of(&will["payload"]),
            qos(qos_of(will)).expect("qos"),
            will["retain"] == true,
        ));
    }
    let (client, connection) = Rumqttc::new(options, REQUESTS_MAX);
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    let thread = thread::spawn(move || read(connection, &told));
    (Box::new(Old(client)), Reader { ended, thread })
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
                    SubscribeReasonCode::Failure => 0x80,
                })
                .collect();
            say(json!({"is": "subscribed", "qos": granted}));
        }
        Packet::PubAck(_) | Packet::PubComp(_) => say(json!({"is": "published"})),
        Packet::Publish(publish) => say(json!({
            "is": "message",
            "topic": publish.topic,
            "payload": hex_of(&publish.payload),
            "qos": publish.qos as u8,
            "retain": publish.retain,
            "user": [],
            "response": "",
            "correlation": "",
            "type": "",
        })),
        _ => {}
    }
}
