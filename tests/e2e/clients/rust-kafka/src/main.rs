//! The Rust client of Kafka: kafka-rust HOST:PORT, then one of
//!
//!     produce TOPIC CODEC                        records from stdin, as JSON, a line each
//!     consume TOPIC COUNT                        records to stdout
//!     copy SOURCE TARGET COUNT SIZE ABORTED      in transactions, as kafka_copier.js says
//!     tour TOPIC                                 topics, groups and administration
//!
//! krafka is Rust all through. Keys, values and the values of headers are base64, or null.

mod tour;

use std::io::{self, BufRead};
use std::time::Duration;

use base64::prelude::{Engine, BASE64_STANDARD};
use krafka::consumer::{AutoOffsetReset, ConsumerBuilder, ConsumerRecord, IsolationLevel};
use krafka::producer::{ProducerBuilder, TopicPartitionOffset, TransactionalProducer};
use krafka::{Compression, Kafka, Record};
use serde_json::{json, Value};

pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

pub const POLLING: Duration = Duration::from_millis(100);
const BYTES_MAX: i32 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(150);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = given.iter().map(String::as_str).collect();
    tokio::time::timeout(PATIENCE, run(&words)).await?
}

async fn run(words: &[&str]) -> Outcome<()> {
    let kafka = Kafka::builder(words[0])
        .allow_auto_create_topics(true)
        .connect()
        .await?;
    match words[1..] {
        ["produce", topic, codec] => produce(&kafka, topic, codec).await,
        ["consume", topic, count] => consume(&kafka, topic, count.parse()?).await,
        ["copy", source, target, count, size, aborted] => {
            let numbers = (count.parse()?, size.parse()?, aborted.parse()?);
            copy(&kafka, source, target, numbers).await
        }
        ["tour", topic] => {
            println!("{}", tour::tour(&kafka, topic).await?);
            Ok(())
        }
        _ => Err(format!("no command {:?}", &words[1..]).into()),
    }
}

pub fn reader(builder: ConsumerBuilder) -> ConsumerBuilder {
    builder
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .enable_auto_commit(false)
        .fetch_max_bytes(2 * BYTES_MAX)
        .max_partition_fetch_bytes(BYTES_MAX)
        .fetch_max_wait(POLLING)
}

fn writer(builder: ProducerBuilder) -> ProducerBuilder {
    builder
        .max_request_size(BYTES_MAX as usize)
        .delivery_timeout(PATIENCE)
}

async fn produce(kafka: &Kafka, topic: &str, codec: &str) -> Outcome<()> {
    let compression = match codec {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => return Err(format!("no codec {codec}").into()),
    };
    let producer = writer(kafka.producer())
        .compression(compression)
        .build()
        .await?;
    let mut sent = Vec::new();
    for line in io::stdin().lock().lines() {
        let one: Value = serde_json::from_str(&line?)?;
        let mut record = Record::new(topic, Vec::new());
        record.key = bytes_of(&one["key"])?.map(Into::into);
        record.value = bytes_of(&one["value"])?.map(Into::into);
        for header in one["headers"].as_array().ok_or("no headers")? {
            let name = header[0].as_str().ok_or("no name")?;
            record = record.header(name, bytes_of(&header[1])?.ok_or("null")?);
        }
        sent.push(producer.enqueue(record).await?);
    }
    for handle in sent {
        let _ = handle.await?;
    }
    Ok(producer.close().await?)
}

async fn consume(kafka: &Kafka, topic: &str, count: usize) -> Outcome<()> {
    let consumer = reader(kafka.consumer_without_group()).build().await?;
    let known = consumer.fetch_metadata(Some(topic)).await?;
    let partitions = known.topics[0].partitions.keys().copied().collect();
    consumer.assign(topic, partitions).await?;
    let mut came = 0;
    while came < count {
        for record in consumer.poll(POLLING).await?.iter().take(count - came) {
            let headers: Vec<Value> = record
                .headers
                .iter()
                .map(|(name, value)| json!([name, text_of(value.as_deref())]))
                .collect();
            let (key, value) = (
                text_of(record.key.as_deref()),
                text_of(record.value.as_deref()),
            );
            println!(
                "{}",
                json!({"key": key, "value": value, "headers": headers})
            );
            came += 1;
        }
    }
    Ok(consumer.close().await?)
}

async fn copy(
    kafka: &Kafka,
    source: &str,
    target: &str,
    (count, size, aborted): (usize, i32, usize),
) -> Outcome<()> {
    let group = format!("copier-{target}");
    let consumer = reader(kafka.consumer(&group))
        .isolation_level(IsolationLevel::ReadCommitted)
        .max_poll_records(size)
        .build()
        .await?;
    let producer = writer(kafka.producer())
        .delivery_timeout(Duration::from_secs(45))
        .build_transactional(&group)
        .await?;
    consumer.subscribe([source]).await?;
    let (mut done, mut number) = (0, 0);
    while done < count {
        let records = consumer.poll(POLLING).await?;
        let Some(last) = records.last() else { continue };
        if number % aborted == 0 {
            write(&producer, target, &records).await?;
            producer.abort().await?;
        }
        write(&producer, target, &records).await?;
        let next = TopicPartitionOffset::new(&*last.topic, last.partition, last.offset + 1);
        let member = consumer.group_metadata().await.ok_or("not a member")?;
        producer.send_offsets(&[next], &member).await?;
        producer.commit().await?;
        done += records.len();
        number += 1;
    }
    producer.close().await?;
    Ok(consumer.close().await?)
}

async fn write(
    producer: &TransactionalProducer,
    target: &str,
    records: &[ConsumerRecord],
) -> Outcome<()> {
    producer.begin()?;
    for record in records {
        let value = record.value.clone().ok_or("null")?;
        let _ = producer.send(Record::new(target, value)).await?;
    }
    Ok(())
}

fn bytes_of(text: &Value) -> Outcome<Option<Vec<u8>>> {
    Ok(text
        .as_str()
        .map(|text| BASE64_STANDARD.decode(text))
        .transpose()?)
}

fn text_of(data: Option<&[u8]>) -> Option<String> {
    data.map(|data| BASE64_STANDARD.encode(data))
}
