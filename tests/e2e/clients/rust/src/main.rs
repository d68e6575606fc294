//! The Rust client: mqtt-rust HOST:PORT, then a command a line in, an event a line out.
//!
//! rumqttc speaks both versions. Commands and events are those of mqtt_scripted.py.

mod modern;
mod old;

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{json, Value};

pub const PACKET_SIZE_MAX: u32 = 16 << 20;
pub const REQUESTS_MAX: usize = 1000;
pub const LOOK: Duration = Duration::from_millis(20); // how often a connection asks whether to end

/// A connection: how to speak, and the thread that reads.
pub trait Client {
    fn subscribe(&self, filter: &str, qos: u8);
    fn publish(&self, asked: &Value);
    fn disconnect(&self);
}

/// The thread that turns what arrives into events, until it is told to drop the connection.
pub struct Reader {
    pub ended: Arc<AtomicBool>,
    pub thread: JoinHandle<()>,
}

pub fn say(event: Value) {
    let mut out = io::stdout().lock();
    writeln!(out, "{event}").expect("stdout");
    out.flush().expect("stdout");
}

pub fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn bytes_of(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("hexadecimal");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

pub fn text_of(asked: &Value, name: &str) -> String {
    asked[name].as_str().expect(name).to_string()
}

pub fn qos_of(asked: &Value) -> u8 {
    asked["qos"].as_u64().expect("qos") as u8
}

fn main() {
    let address = std::env::args().nth(1).expect("HOST:PORT");
    let (host, port) = address.rsplit_once(':').expect("HOST:PORT");
    let port: u16 = port.parse().expect("a port");
    let mut now: Option<(Box<dyn Client>, Reader)> = None;
    for line in io::stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line.expect("stdin")).expect("a command");
        match asked["do"].as_str().expect("do") {
            "connect" => {
                now = Some(match asked["version"].as_u64() {
                    Some(5) => modern::connect(host, port, &asked),
                    _ => old::connect(host, port, &asked),
                });
            }
            "subscribe" => {
                let (client, _) = now.as_ref().expect("connected");
                client.subscribe(&text_of(&asked, "filter"), qos_of(&asked));
            }
            "publish" => now.as_ref().expect("connected").0.publish(&asked),
            "leave" => {
                let (client, reader) = now.take().expect("connected");
                client.disconnect();
                reader.thread.join().expect("a reader");
                say(json!({"is": "left"}));
            }
            "cut" => {
                let (_, reader) = now.take().expect("connected");
                reader.ended.store(true, Ordering::Relaxed);
                reader.thread.join().expect("a reader");
                say(json!({"is": "cut"}));
            }
            other => panic!("unknown: {other}"),
        }
    }
}
