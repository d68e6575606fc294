// mqtt.js for the end-to-end tests: lines of JSON in and out, payloads as base64.
//
//   node mqtt_client.js HOST PORT publish            one message a line on stdin; ends when all are acknowledged
// MQTT_SCHEME is mqtt (the default), ws or wss; NODE_EXTRA_CA_CERTS names whom to believe.
//
//   node mqtt_client.js HOST PORT subscribe FILTER QOS   {"subscribed": [qos]} first, then one message a line

import { createInterface } from 'node:readline'
import mqtt from 'mqtt'

const [host, port, action, filter, qos] = process.argv.slice(2)
const client = await mqtt.connectAsync({
  host,
  port: Number(port),
  protocol: process.env.MQTT_SCHEME ?? 'mqtt',
  path: '/mqtt',
  protocolVersion: 5,
  reconnectPeriod: 0,
  connectTimeout: 120_000,
  properties: { receiveMaximum: 1000 },
})

const say = (object) => process.stdout.write(JSON.stringify(object) + '\n')

// mqtt.js keeps user properties as an object of lists, so order holds per name only.
const pairsOf = (user = {}) =>
  Object.entries(user).flatMap(([name, values]) => [values].flat().map((value) => [name, value]))

const userOf = (pairs) => {
  const user = {}
  for (const [name, value] of pairs) user[name] = [...(user[name] ?? []), value]
  return user
}

async function publish() {
  const acknowledged = []
  for await (const line of createInterface({ input: process.stdin })) {
    const { topic, payload, qos, retain, user } = JSON.parse(line)
    const properties = user.length ? { userProperties: userOf(user) } : undefined
    acknowledged.push(
      client.publishAsync(topic, Buffer.from(payload, 'base64'), { qos, retain, properties }),
    )
    // mqtt.js leaves it to its user to keep the server's Receive Maximum.
    if (acknowledged.length === 500) await Promise.all(acknowledged.splice(0))
  }
  await Promise.all(acknowledged)
  await client.endAsync()
}

async function subscribe() {
  client.on('message', (topic, payload, packet) =>
    say({
      topic,
      payload: payload.toString('base64'),
      qos: packet.qos,
      retain: packet.retain,
      user: pairsOf(packet.properties?.userProperties),
    }),
  )
  const granted = await client.subscribeAsync(filter, { qos: Number(qos) })
  say({ subscribed: granted.map((one) => one.qos) })
}

process.on('SIGTERM', () => process.exit(0))
await (action === 'publish' ? publish() : subscribe())
