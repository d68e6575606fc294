package main

import (
	"encoding/hex"
	"net"
	"net/url"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// MQTT 3.1.1, by paho.mqtt.golang.
type old struct {
	conn   net.Conn
	client mqtt.Client
}

func done(token mqtt.Token) {
	token.Wait()
	check(token.Error())
}

func (o *old) connect(address string, asked command) {
	options := mqtt.NewClientOptions().
		AddBroker("tcp://" + address).
		SetClientID(asked.ID).
		SetProtocolVersion(4).
		SetCleanSession(asked.Clean).
		SetAutoReconnect(false).
		SetDefaultPublishHandler(func(_ mqtt.Client, arrived mqtt.Message) {
			say(message{
				Is:      "message",
				Topic:   arrived.Topic(),
				Payload: hex.EncodeToString(arrived.Payload()),
				Qos:     arrived.Qos(),
				Retain:  arrived.Retained(),
				User:    [][2]string{},
			})
		}).
		SetCustomOpenConnectionFn(func(_ *url.URL, _ mqtt.ClientOptions) (net.Conn, error) {
			conn, err := net.Dial("tcp", address)
			o.conn = conn
			return conn, err
		})
	if asked.Will != nil {
		options.SetBinaryWill(
			asked.Will.Topic, bytesOf(asked.Will.Payload), asked.Will.Qos, asked.Will.Retain)
	}
	o.client = mqtt.NewClient(options)
	done(o.client.Connect())
}

func (o *old) subscribe(filter string, qos byte) []byte {
	token := o.client.Subscribe(filter, qos, nil).(*mqtt.SubscribeToken)
	done(token)
	return []byte{token.Result()[filter]}
}

func (o *old) publish(asked command) {
	done(o.client.Publish(asked.Topic, asked.Qos, asked.Retain, bytesOf(asked.Payload)))
}

func (o *old) leave() {
	o.client.Disconnect(250) // milliseconds for what it still has to send
}

func (o *old) cut() {
	check(o.conn.Close())
}
