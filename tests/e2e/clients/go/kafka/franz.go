package main

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

type franz struct {
	address string
}

var franzCodecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func (to franz) client(more ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(to.how(more...)...)
	must(err)
	return client
}

func (to franz) how(more ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.SeedBrokers(to.address),
		kgo.AllowAutoTopicCreation(),
		kgo.ProducerBatchMaxBytes(bytesMax),
		kgo.BrokerMaxReadBytes(2 * bytesMax),
		kgo.FetchMaxBytes(bytesMax),
		kgo.FetchMaxPartitionBytes(bytesMax),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}, more...)
}

func (to franz) produce(topic string, codec string, records []record) {
	client := to.client(kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(franzCodecs[codec]))
	defer client.Close()
	var sent []*kgo.Record
	for _, one := range records {
		made := &kgo.Record{Key: one.Key, Value: one.Value}
		for _, each := range one.Headers {
			made.Headers = append(made.Headers, kgo.RecordHeader{Key: each.name, Value: each.value})
		}
		sent = append(sent, made)
	}
	must(client.ProduceSync(context.Background(), sent...).FirstErr())
}

func (to franz) consume(topic string, count int) (records []record) {
	client := to.client(kgo.ConsumeTopics(topic))
	defer client.Close()
	for len(records) < count {
		polled := client.PollRecords(context.Background(), count-len(records))
		must(polled.Err())
		for _, each := range polled.Records() {
			made := record{Key: each.Key, Value: each.Value}
			for _, one := range each.Headers {
				made.Headers = append(made.Headers, header{one.Key, one.Value})
			}
			records = append(records, made)
		}
	}
	return records
}

func (to franz) copy(source string, target string, count int, size int, aborted int) {
	ctx := context.Background()
	group := "copier-" + target
	session, err := kgo.NewGroupTransactSession(to.how(
		kgo.TransactionalID(group),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(source),
		kgo.DefaultProduceTopic(target),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
	)...)
	must(err)
	defer session.Close()
	again := false // what was aborted is polled again
	for done, number := 0, 0; done < count; {
		polled := session.PollRecords(ctx, size)
		must(polled.Err())
		if polled.NumRecords() == 0 {
			continue
		}
		must(session.Begin())
		for _, one := range polled.Records() {
			must(session.ProduceSync(ctx, &kgo.Record{Value: one.Value}).FirstErr())
		}
		if number%aborted == 0 && !again {
			again = true
			_, err = session.End(ctx, kgo.TryAbort)
			must(err)
			continue
		}
		committed, err := session.End(ctx, kgo.TryCommit)
		must(err)
		if committed {
			done += polled.NumRecords()
			number++
		}
		again = false
	}
}

func (to franz) tour(ctx context.Context, topic string) (seen sights) {
	group := "franz-" + topic
	client := to.client(kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer client.Close()
	admin := kadm.NewClient(client)
	_, err := admin.CreateTopic(ctx, partitions, 1, nil, topic)
	must(err)
	for number := range produced {
		sent := &kgo.Record{Partition: int32(number % partitions), Value: []byte("some")}
		must(client.ProduceSync(ctx, sent).FirstErr())
	}
	seen.Shared, seen.Read = to.share(ctx, admin, topic, group)
	listed, err := admin.ListGroups(ctx)
	must(err)
	seen.Kind, seen.State = listed[group].ProtocolType, listed[group].State
	seen.Lag = lagOf(ctx, admin, group)

	changed, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("123456789")},
	}, topic)
	must(err)
	must(changed[0].Err)
	described, err := admin.DescribeTopicConfigs(ctx, topic)
	must(err)
	for _, one := range described[0].Configs {
		if one.Key == "retention.ms" {
			seen.Retention = one.MaybeValue()
		}
	}

	until := kadm.Offsets{}
	until.AddOffset(topic, 0, deleted, -1)
	_, err = admin.DeleteRecords(ctx, until)
	must(err)
	starts, err := admin.ListStartOffsets(ctx, topic)
	must(err)
	first, _ := starts.Lookup(topic, 0)
	seen.Start = first.Offset

	_, err = admin.DeleteGroup(ctx, group)
	must(err)
	_, err = admin.DeleteTopic(ctx, topic)
	must(err)
	groups, err := admin.ListGroups(ctx)
	must(err)
	topics, err := admin.ListTopics(ctx)
	must(err)
	seen.Gone = !slices.Contains(groups.Groups(), group) && !topics.Has(topic)
	return seen
}

// Two members read all and commit; return how many partitions each had, and how much they read.
func (to franz) share(
	ctx context.Context, admin *kadm.Client, topic string, group string,
) (shared []int, read int) {
	var members []*kgo.Client
	for range 2 {
		members = append(members, to.client(
			kgo.ConsumerGroup(group),
			kgo.ConsumeTopics(topic),
			kgo.DisableAutoCommit(),
			kgo.SessionTimeout(membership),
			kgo.HeartbeatInterval(polling),
		))
	}
	for len(shared) < 2 || slices.Contains(shared, 0) || lagOf(ctx, admin, group) > 0 {
		shared = nil
		for _, member := range members {
			short, cancel := context.WithTimeout(ctx, polling)
			polled := member.PollFetches(short)
			cancel()
			read += polled.NumRecords()
			// What is not taken while the group rebalances is committed, or read, again.
			_ = member.CommitUncommittedOffsets(ctx)
		}
		described, err := admin.DescribeGroups(ctx, group)
		must(err)
		for _, member := range described[group].Members {
			if assigned, ok := member.Assigned.AsConsumer(); ok && len(assigned.Topics) > 0 {
				shared = append(shared, len(assigned.Topics[0].Partitions))
			} else {
				shared = append(shared, 0)
			}
		}
	}
	for _, member := range members {
		member.Close()
	}
	return shared, read
}

func lagOf(ctx context.Context, admin *kadm.Client, group string) int64 {
	lags, err := admin.Lag(ctx, group)
	must(err)
	must(lags.Error())
	return lags[group].Lag.Total()
}
