package main

import (
	"context"
	"slices"
	"sync"

	"github.com/IBM/sarama"
)

type shopify struct {
	address string
}

var saramaCodecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

func (to shopify) how() *sarama.Config {
	how := sarama.NewConfig()
	how.Version = sarama.MaxVersion
	how.Producer.RequiredAcks = sarama.WaitForAll
	how.Producer.Idempotent = true
	how.Producer.Return.Successes = true
	how.Producer.MaxMessageBytes = bytesMax
	how.Net.MaxOpenRequests = 1
	how.Consumer.Offsets.Initial = sarama.OffsetOldest
	how.Consumer.Offsets.AutoCommit.Enable = false
	how.Consumer.Fetch.Default = bytesMax
	how.Consumer.Group.Heartbeat.Interval = polling
	how.Consumer.Group.Session.Timeout = membership
	how.Consumer.Group.Rebalance.Retry.Backoff = polling
	how.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{
		sarama.NewBalanceStrategyRange(),
	}
	return how
}

func (to shopify) producer(how *sarama.Config) sarama.SyncProducer {
	producer, err := sarama.NewSyncProducer([]string{to.address}, how)
	must(err)
	return producer
}

func (to shopify) produce(topic string, codec string, records []record) {
	how := to.how()
	how.Producer.Compression = saramaCodecs[codec]
	producer := to.producer(how)
	var sent []*sarama.ProducerMessage
	for _, one := range records {
		made := &sarama.ProducerMessage{Topic: topic, Key: encoder(one.Key), Value: encoder(one.Value)}
		for _, each := range one.Headers {
			named := sarama.RecordHeader{Key: []byte(each.name), Value: each.value}
			made.Headers = append(made.Headers, named)
		}
		sent = append(sent, made)
	}
	must(producer.SendMessages(sent))
	must(producer.Close())
}

// An encoder that is nil is null, one of no bytes is not.
func encoder(data []byte) sarama.Encoder {
	if data == nil {
		return nil
	}
	return sarama.ByteEncoder(data)
}

func (to shopify) consume(topic string, count int) (records []record) {
	consumer, err := sarama.NewConsumer([]string{to.address}, to.how())
	must(err)
	numbers, err := consumer.Partitions(topic)
	must(err)
	came := make(chan *sarama.ConsumerMessage)
	for _, partition := range numbers {
		reader, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
		must(err)
		go func() {
			for each := range reader.Messages() {
				came <- each
			}
		}()
	}
	for len(records) < count {
		each := <-came
		made := record{Key: each.Key, Value: each.Value}
		for _, one := range each.Headers {
			made.Headers = append(made.Headers, header{string(one.Key), one.Value})
		}
		records = append(records, made)
	}
	return records
}

// What one member of a group does with each partition that it is given.
type claimant struct {
	claimed func(sarama.ConsumerGroupSession)
	read    func(sarama.ConsumerGroupSession, *sarama.ConsumerMessage)
}

// Commit what was marked, once: a commit waits behind a Fetch, on the same connection.
func (claimant) Cleanup(session sarama.ConsumerGroupSession) error {
	session.Commit()
	return nil
}

func (one claimant) Setup(session sarama.ConsumerGroupSession) error {
	one.claimed(session)
	return nil
}

func (one claimant) ConsumeClaim(
	session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim,
) error {
	for {
		select {
		case each, open := <-claim.Messages():
			if !open {
				return nil
			}
			one.read(session, each)
		case <-session.Context().Done():
			return nil
		}
	}
}

// Be a member of a group until the context ends.
func (to shopify) join(ctx context.Context, group string, topic string, what claimant) {
	member, err := sarama.NewConsumerGroup([]string{to.address}, group, to.how())
	must(err)
	for ctx.Err() == nil {
		must(member.Consume(ctx, []string{topic}, what))
	}
	must(member.Close())
}

func (to shopify) copy(source string, target string, count int, size int, aborted int) {
	group := "copier-" + target
	how := to.how()
	how.Producer.Transaction.ID = group
	producer := to.producer(how)
	ctx, end := context.WithCancel(context.Background())
	var some []*sarama.ConsumerMessage
	done, number := 0, 0
	write := func() {
		must(producer.BeginTxn())
		for _, each := range some {
			_, _, err := producer.SendMessage(
				&sarama.ProducerMessage{Topic: target, Value: sarama.ByteEncoder(each.Value)})
			must(err)
		}
	}
	read := func(session sarama.ConsumerGroupSession, each *sarama.ConsumerMessage) {
		if some = append(some, each); len(some) < size {
			return
		}
		if number%aborted == 0 {
			write()
			must(producer.AbortTxn())
		}
		write()
		last := some[len(some)-1]
		must(producer.AddMessageToTxn(last, group, nil))
		must(producer.CommitTxn())
		done += len(some)
		number++
		if some = nil; done >= count {
			end()
		}
	}
	to.join(ctx, group, source, claimant{func(sarama.ConsumerGroupSession) {}, read})
	must(producer.Close())
}

func (to shopify) tour(ctx context.Context, topic string) (seen sights) {
	group := "sarama-" + topic
	admin, err := sarama.NewClusterAdmin([]string{to.address}, to.how())
	must(err)
	detail := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}
	must(admin.CreateTopic(topic, detail, false))
	how := to.how()
	how.Producer.Partitioner = sarama.NewManualPartitioner
	producer := to.producer(how)
	for number := range produced {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{
			Topic: topic, Partition: int32(number % partitions), Value: sarama.StringEncoder("some"),
		})
		must(err)
	}
	must(producer.Close())
	seen.Shared, seen.Read = to.share(ctx, topic, group)
	described, err := admin.DescribeConsumerGroups([]string{group})
	must(err)
	seen.State = described[0].State
	listed, err := admin.ListConsumerGroups()
	must(err)
	seen.Kind = listed[group]
	seen.Lag = to.lag(admin, topic, group)

	value := "123456789"
	set := map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
	}
	must(admin.IncrementalAlterConfig(sarama.TopicResource, topic, set, false))
	configs, err := admin.DescribeConfig(sarama.ConfigResource{
		Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"},
	})
	must(err)
	seen.Retention = configs[0].Value

	must(admin.DeleteRecords(topic, map[int32]int64{0: deleted}))
	starts, err := admin.ListOffsets(
		map[string]map[int32]int64{topic: {0: sarama.OffsetOldest}}, &sarama.ListOffsetsOptions{})
	must(err)
	seen.Start = starts[topic][0].Offset

	must(admin.DeleteConsumerGroup(group))
	must(admin.DeleteTopic(topic))
	listed, err = admin.ListConsumerGroups()
	must(err)
	topics, err := admin.ListTopics()
	must(err)
	_, isGroup := listed[group]
	_, isTopic := topics[topic]
	seen.Gone = !isGroup && !isTopic
	must(admin.Close())
	return seen
}

// Two members read all and commit; return how many partitions each had, and how much they read.
func (to shopify) share(ctx context.Context, topic string, group string) (shared []int, read int) {
	ctx, end := context.WithCancel(ctx)
	var lock sync.Mutex
	var leaving sync.WaitGroup
	shared = make([]int, 2)
	look := func() {
		if !slices.Contains(shared, 0) && shared[0]+shared[1] == partitions && read >= produced {
			end()
		}
	}
	for index := range shared {
		claimed := func(session sarama.ConsumerGroupSession) {
			lock.Lock()
			defer lock.Unlock()
			shared[index] = len(session.Claims()[topic])
			look()
		}
		got := func(session sarama.ConsumerGroupSession, each *sarama.ConsumerMessage) {
			lock.Lock()
			defer lock.Unlock()
			session.MarkMessage(each, "")
			read++
			look()
		}
		leaving.Go(func() { to.join(ctx, group, topic, claimant{claimed, got}) })
	}
	leaving.Wait()
	return shared, read
}

func (to shopify) lag(admin sarama.ClusterAdmin, topic string, group string) (lag int64) {
	wanted := map[string][]int32{topic: {}}
	ends := map[string]map[int32]int64{topic: {}}
	for partition := range int32(partitions) {
		wanted[topic] = append(wanted[topic], partition)
		ends[topic][partition] = sarama.OffsetNewest
	}
	committed, err := admin.ListConsumerGroupOffsets(group, wanted)
	must(err)
	offsets, err := admin.ListOffsets(ends, &sarama.ListOffsetsOptions{})
	must(err)
	for partition, end := range offsets[topic] {
		lag += end.Offset - committed.GetBlock(topic, partition).Offset
	}
	return lag
}
