// kafkajs for the end-to-end tests: lines of JSON in and out, bytes as base64.
//
//   node kafka_client.js HOST:PORT produce TOPIC none|gzip   one record a line on stdin; ends when all are acknowledged
//   node kafka_client.js HOST:PORT consume TOPIC COUNT       the first COUNT records, one a line
//
// It logs in where KAFKA_SASL in the environment says how.

import { randomUUID } from 'node:crypto'
import { createInterface } from 'node:readline'
import kafkajs from 'kafkajs'

const [broker, action, topic, detail] = process.argv.slice(2)
process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'
const kafka = new kafkajs.Kafka({
  brokers: [broker],
  sasl: JSON.parse(process.env.KAFKA_SASL ?? 'null') ?? undefined, // {mechanism, username, password}
  connectionTimeout: 60_000, // a second by default, which a busy machine may need
  requestTimeout: 120_000,
  logLevel: kafkajs.logLevel.ERROR,
})

const bytes = (text) => (text === null ? null : Buffer.from(text, 'base64'))
const text = (buffer) => (buffer === null ? null : Buffer.from(buffer).toString('base64'))

// kafkajs keeps headers as an object of lists, so order holds per name only.
function headersOf(pairs) {
  const headers = {}
  for (const [name, value] of pairs) headers[name] = [...(headers[name] ?? []), bytes(value)]
  return headers
}

async function produce() {
  const messages = []
  for await (const line of createInterface({ input: process.stdin })) {
    const { key, value, headers } = JSON.parse(line)
    messages.push({ key: bytes(key), value: bytes(value), headers: headersOf(headers) })
  }
  const producer = kafka.producer({
    createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
    idempotent: true,
  })
  const compression = detail === 'gzip' ? kafkajs.CompressionTypes.GZIP : kafkajs.CompressionTypes.None
  await producer.connect()
  for (let at = 0; at < messages.length; at += 5000) {
    await producer.send({ topic, acks: -1, compression, messages: messages.slice(at, at + 5000) })
  }
  await producer.disconnect()
}

async function consume() {
  const consumer = kafka.consumer({
    groupId: `kafkajs-${randomUUID()}`,
    maxBytesPerPartition: 16 << 20,
    maxWaitTimeInMs: 50,
  })
  let left = Number(detail)
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  const enough = new Promise((resolve) => {
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ message: { key, value, headers } }) => {
        if (left-- <= 0) return
        const pairs = Object.entries(headers ?? {}).flatMap(([name, values]) =>
          [values].flat().map((one) => [name, text(one)]),
        )
        process.stdout.write(JSON.stringify({ key: text(key), value: text(value), headers: pairs }) + '\n')
        if (left === 0) resolve()
      },
    })
  })
  await enough
  await consumer.disconnect()
}

await (action === 'produce' ? produce() : consume())
