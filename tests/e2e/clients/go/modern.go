package main

import (
	"context"
	"encoding/hex"
	"net"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// MQTT 5, by paho.golang. What it keeps of a session outlives its connections.
type modern struct {
	session *state.State
	conn    net.Conn
	client  *paho.Client
}

func newModern() *modern {
	return &modern{session: state.NewInMemory()}
}

func (m *modern) connect(address string, asked command) {
	conn, err := net.Dial("tcp", address)
	check(err)
	m.conn = conn
	m.client = paho.NewClient(paho.ClientConfig{
		Conn:              conn,
		Session:           m.session,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){m.received},
	})
	var expiry uint32
	if !asked.Clean {
		expiry = 3600
	}
	packet := &paho.Connect{
		ClientID:   asked.ID,
		CleanStart: asked.Clean,
		KeepAlive:  60,
		Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry},
	}
	if asked.Will != nil {
		packet.WillMessage = &paho.WillMessage{
			Topic:   asked.Will.Topic,
			Payload: bytesOf(asked.Will.Payload),
			QoS:     asked.Will.Qos,
			Retain:  asked.Will.Retain,
		}
		packet.WillProperties = &paho.WillProperties{}
	}
	_, err = m.client.Connect(context.Background(), packet)
	check(err)
}

func (m *modern) received(arrived paho.PublishReceived) (bool, error) {
	packet := arrived.Packet
	event := message{
		Is:      "message",
		Topic:   packet.Topic,
		Payload: hex.EncodeToString(packet.Payload),
		Qos:     packet.QoS,
		Retain:  packet.Retain,
		User:    [][2]string{},
	}
	if said := packet.Properties; said != nil {
		for _, pair := range said.User {
			event.User = append(event.User, [2]string{pair.Key, pair.Value})
		}
		event.Response = said.ResponseTopic
		event.Correlation = hex.EncodeToString(said.CorrelationData)
		event.Type = said.ContentType
	}
	say(event)
	return true, nil
}

func (m *modern) subscribe(filter string, qos byte) []byte {
	suback, err := m.client.Subscribe(context.Background(), &paho.Subscribe{
		Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}},
	})
	check(err)
	return suback.Reasons
}

func (m *modern) publish(asked command) {
	properties := &paho.PublishProperties{
		ResponseTopic: asked.Response,
		ContentType:   asked.Type,
	}
	if asked.Correlation != "" {
		properties.CorrelationData = bytesOf(asked.Correlation)
	}
	for _, pair := range asked.User {
		properties.User = append(properties.User, paho.UserProperty{Key: pair[0], Value: pair[1]})
	}
	_, err := m.client.Publish(context.Background(), &paho.Publish{
		Topic:      asked.Topic,
		Payload:    bytesOf(asked.Payload),
		QoS:        asked.Qos,
		Retain:     asked.Retain,
		Properties: properties,
	})
	check(err)
}

func (m *modern) leave() {
	check(m.client.Disconnect(&paho.Disconnect{}))
	<-m.client.Done()
}

func (m *modern) cut() {
	check(m.conn.Close())
	<-m.client.Done()
}
