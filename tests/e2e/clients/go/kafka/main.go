// The Go clients of Kafka: kafka-go LIBRARY HOST:PORT COMMAND, with LIBRARY franz-go or sarama.
//
//	produce TOPIC CODEC                        records from stdin, as JSON, a line each
//	consume TOPIC COUNT                        records to stdout
//	copy SOURCE TARGET COUNT SIZE ABORTED      in transactions, as kafka_copier.js says
//	tour TOPIC                                 topics, groups and administration; see tour
//
// Keys, values and the values of headers are base64, or null.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"
	"strconv"
	"time"
)

const (
	bytesMax   = 16 << 20
	patience   = 150 * time.Second
	membership = 60 * time.Second
	polling    = 100 * time.Millisecond
	partitions = 4
	produced   = 40
	deleted    = 3
)

type header struct {
	name  string
	value []byte
}

func (one header) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{one.name, one.value})
}

func (one *header) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&one.name, &one.value})
}

type record struct {
	Key     []byte   `json:"key"`
	Value   []byte   `json:"value"`
	Headers []header `json:"headers"`
}

// What a tour has seen.
type sights struct {
	// How many partitions each of two members of a group had.
	Shared []int `json:"shared"`
	// How many records the two have read; more than were produced if they read some again.
	Read int `json:"read"`
	// Of the topic: what its retention.ms was changed to.
	Retention string `json:"retention"`
	// Of the group: how the list calls its kind, its state without members, its lag.
	Kind  string `json:"kind"`
	State string `json:"state"`
	Lag   int64  `json:"lag"`
	// Where the first partition begins after its first records were deleted.
	Start int64 `json:"start"`
	// Whether group and topic were gone in the end.
	Gone bool `json:"gone"`
}

// A library; what goes wrong ends the program.
type library interface {
	produce(topic string, codec string, records []record)
	consume(topic string, count int) []record
	copy(source string, target string, count int, size int, aborted int)
	tour(ctx context.Context, topic string) sights
}

func main() {
	log.SetFlags(0)
	address, asked, rest := os.Args[2], os.Args[3], os.Args[4:]
	var chosen library
	switch os.Args[1] {
	case "franz-go":
		chosen = franz{address}
	case "sarama":
		chosen = shopify{address}
	default:
		log.Fatalf("no library %s", os.Args[1])
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	time.AfterFunc(patience, func() { log.Fatalf("%s took longer than %s", asked, patience) })
	out := json.NewEncoder(os.Stdout)
	switch asked {
	case "produce":
		chosen.produce(rest[0], rest[1], given())
	case "consume":
		for _, one := range chosen.consume(rest[0], number(rest[1])) {
			must(out.Encode(one))
		}
	case "copy":
		chosen.copy(rest[0], rest[1], number(rest[2]), number(rest[3]), number(rest[4]))
	case "tour":
		must(out.Encode(chosen.tour(ctx, rest[0])))
	default:
		log.Fatalf("no command %s", asked)
	}
}

func given() (records []record) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 2*bytesMax)
	for lines.Scan() {
		var one record
		must(json.Unmarshal(lines.Bytes(), &one))
		records = append(records, one)
	}
	must(lines.Err())
	return records
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	must(err)
	return value
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
