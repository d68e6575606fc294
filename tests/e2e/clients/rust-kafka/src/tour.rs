//! What the client does on its tour: a topic, a group of two in KIP-848's protocol, settings,
//! deleted records, and in the end all of it deleted. What was seen is an object of JSON.

use krafka::admin::{AdminClient, ConfigOp, ConfigResource, NewTopic, OffsetSpec, TopicPartition};
use krafka::consumer::{Consumer, GroupProtocol};
use krafka::{Kafka, Record};
use serde_json::{json, Value};

use crate::{reader, Outcome, POLLING};

const PARTITIONS: i32 = 4;
const PRODUCED: i32 = 40;
const DELETED: i64 = 3;

pub async fn tour(kafka: &Kafka, topic: &str) -> Outcome<Value> {
    let group = format!("krafka-{topic}");
    let admin = kafka.admin();
    let wanted = NewTopic::new(topic, PARTITIONS, 1)?;
    for result in admin
        .create_topics([wanted], Default::default())
        .await?
        .into_values()
    {
        result?;
    }
    let producer = kafka.producer().build().await?;
    for number in 0..PRODUCED {
        let record = Record::new(topic, "some").partition(number % PARTITIONS);
        let _ = producer.send(record).await?;
    }
    producer.close().await?;
    let (shared, read) = share(kafka, &admin, topic, &group).await?;
    let (kind, state) = listed(&admin, &group)
        .await?
        .ok_or("the group is not listed")?;
    let lag = lag_of(&admin, &group).await?;
    let retention = configure(&admin, topic).await?;

    let first = TopicPartition::new(topic, 0);
    admin
        .delete_records([(first.clone(), DELETED)], Default::default())
        .await?;
    let starts = admin
        .list_offsets([(first.clone(), OffsetSpec::Earliest)], Default::default())
        .await?;
    let start = starts[&first].as_ref().map_err(Clone::clone)?.offset;

    for result in admin
        .delete_consumer_groups([&group], Default::default())
        .await?
        .into_values()
    {
        result?;
    }
    for result in admin
        .delete_topics([topic], Default::default())
        .await?
        .into_values()
    {
        result?;
    }
    let topics = admin.list_topics(Default::default()).await?;
    let gone = listed(&admin, &group).await?.is_none() && !topics.iter().any(|each| each == topic);
    Ok(json!({
        "shared": shared, "read": read, "retention": retention, "kind": kind, "state": state,
        "lag": lag, "start": start, "gone": gone,
    }))
}

/// Two members read all and commit; how many partitions each had, and how much they read.
async fn share(
    kafka: &Kafka,
    admin: &AdminClient,
    topic: &str,
    group: &str,
) -> Outcome<(Vec<usize>, usize)> {
    let mut members: Vec<Consumer> = Vec::new();
    for _ in 0..2 {
        let how = reader(kafka.consumer(group)).group_protocol(GroupProtocol::Consumer);
        let member = how.build().await?;
        member.subscribe([topic]).await?;
        members.push(member);
    }
    let (mut shared, mut read) = (Vec::new(), 0);
    while shared.contains(&0) || shared.is_empty() || lag_of(admin, group).await? != Some(0) {
        shared.clear();
        for member in &members {
            read += member.poll(POLLING).await?.len();
            // What is not taken while partitions move is committed, or read, again.
            let _ = member.commit().await;
            shared.push(member.assignment().await.values().map(Vec::len).sum());
        }
    }
    for member in members {
        member.close().await?;
    }
    Ok((shared, read))
}

/// How the list of groups calls a group's protocol and its state.
async fn listed(admin: &AdminClient, group: &str) -> Outcome<Option<(String, Option<String>)>> {
    for groups in admin
        .list_consumer_groups(Default::default())
        .await?
        .into_values()
    {
        if let Some(one) = groups?.into_iter().find(|each| each.group_id == group) {
            return Ok(Some((one.protocol_type, one.state)));
        }
    }
    Ok(None)
}

/// How many records a group has not yet read, if it has an offset in each partition.
async fn lag_of(admin: &AdminClient, group: &str) -> Outcome<Option<i64>> {
    let lags = admin.consumer_group_lag(group, Default::default()).await?;
    let mut total = (lags.len() == PARTITIONS as usize).then_some(0);
    for one in lags.into_values() {
        total = total.zip(one?.lag).map(|(sum, lag)| sum + lag);
    }
    Ok(total)
}

async fn configure(admin: &AdminClient, topic: &str) -> Outcome<Option<String>> {
    let resource = ConfigResource::topic(topic);
    let changes = [(
        resource.clone(),
        vec![ConfigOp::set("retention.ms", "123456789")],
    )];
    for result in admin
        .incremental_alter_configs(changes, Default::default())
        .await?
        .into_values()
    {
        result?;
    }
    let mut described = admin
        .describe_configs([resource.clone()], Default::default())
        .await?;
    let entries = described.remove(&resource).ok_or("not described")??;
    Ok(entries
        .into_iter()
        .find(|one| one.name == "retention.ms")
        .and_then(|one| one.value))
}
