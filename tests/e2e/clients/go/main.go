// The Go clients: mqtt-go HOST:PORT, then a command a line in, an event a line out.
//
// Version 5 is spoken by paho.golang, 3.1.1 by paho.mqtt.golang. Commands and events are those
// of mqtt_scripted.py.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"log"
	"os"
	"sync"
)

type will struct {
	Topic   string `json:"topic"`
	Payload string `json:"payload"`
	Qos     byte   `json:"qos"`
	Retain  bool   `json:"retain"`
}

type command struct {
	Do          string      `json:"do"`
	ID          string      `json:"id"`
	Version     int         `json:"version"`
	Clean       bool        `json:"clean"`
	Will        *will       `json:"will"`
	Filter      string      `json:"filter"`
	Topic       string      `json:"topic"`
	Payload     string      `json:"payload"`
	Qos         byte        `json:"qos"`
	Retain      bool        `json:"retain"`
	User        [][2]string `json:"user"`
	Response    string      `json:"response"`
	Correlation string      `json:"correlation"`
	Type        string      `json:"type"`
}

type message struct {
	Is          string      `json:"is"`
	Topic       string      `json:"topic"`
	Payload     string      `json:"payload"`
	Qos         byte        `json:"qos"`
	Retain      bool        `json:"retain"`
	User        [][2]string `json:"user"`
	Response    string      `json:"response"`
	Correlation string      `json:"correlation"`
	Type        string      `json:"type"`
}

// A client of one version; what goes wrong ends the program.
type client interface {
	connect(address string, asked command)
	subscribe(filter string, qos byte) []byte
	publish(asked command)
	leave()
	cut()
}

var (
	out     = bufio.NewWriter(os.Stdout)
	outLock sync.Mutex
)

func say(event any) {
	outLock.Lock()
	defer outLock.Unlock()
	check(json.NewEncoder(out).Encode(event))
	check(out.Flush())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func bytesOf(text string) []byte {
	data, err := hex.DecodeString(text)
	check(err)
	return data
}

func main() {
	clients := map[int]client{4: &old{}, 5: newModern()}
	var now client
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var asked command
		check(json.Unmarshal(lines.Bytes(), &asked))
		switch asked.Do {
		case "connect":
			now = clients[asked.Version]
			now.connect(os.Args[1], asked)
			say(map[string]any{"is": "connected"})
		case "subscribe":
			granted := []int{}
			for _, qos := range now.subscribe(asked.Filter, asked.Qos) {
				granted = append(granted, int(qos))
			}
			say(map[string]any{"is": "subscribed", "qos": granted})
		case "publish":
			now.publish(asked)
			say(map[string]any{"is": "published"})
		case "leave":
			now.leave()
			say(map[string]any{"is": "left"})
		case "cut":
			now.cut()
			say(map[string]any{"is": "cut"})
		}
	}
}
