// kafkajs copies a log topic in transactions, for the end-to-end tests.
//
//   node kafka_copier.js HOST:PORT SOURCE TARGET COUNT SIZE ABORTED
//
// reads SOURCE in the group copier-TARGET and writes to TARGET, SIZE records in a transaction with the group's offset;
// each transaction whose number ABORTED divides is aborted first, and done again.

import kafkajs from 'kafkajs'

const [broker, source, target, ...numbers] = process.argv.slice(2)
const [count, size, aborted] = numbers.map(Number)
process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'
const kafka = new kafkajs.Kafka({
  brokers: [broker],
  connectionTimeout: 60_000,
  requestTimeout: 120_000,
  logLevel: kafkajs.logLevel.ERROR,
})
const groupId = `copier-${target}`
const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 50 })
const producer = kafka.producer({
  createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
  transactionalId: groupId,
  maxInFlightRequests: 1,
  idempotent: true,
})
await producer.connect()
await consumer.connect()
await consumer.subscribe({ topic: source, fromBeginning: true })

let done = 0
let number = 0
async function copy(partition, messages) {
  const transaction = await producer.transaction()
  await transaction.send({ topic: target, messages: messages.map(({ value }) => ({ value })) })
  if (partition === null) return transaction.abort()
  const offset = String(Number(messages.at(-1).offset) + 1)
  const topics = [{ topic: source, partitions: [{ partition, offset }] }]
  await transaction.sendOffsets({ consumerGroupId: groupId, topics })
  await transaction.commit()
  done += messages.length
}

await new Promise((resolve, reject) => {
  consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch: { partition, messages }, resolveOffset }) => {
      try {
        for (let at = 0; at < messages.length && done < count; at += size, number++) {
          const some = messages.slice(at, at + size)
          if (number % aborted === 0) await copy(null, some)
          await copy(partition, some)
          resolveOffset(some.at(-1).offset)
        }
        if (done >= count) resolve()
      } catch (error) {
        reject(error)
      }
    },
  })
})
await consumer.disconnect()
await producer.disconnect()
