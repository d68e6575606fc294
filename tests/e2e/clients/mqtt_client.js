// mqtt.js on Node.js: node mqtt_client.js URL, then a command a line in, an event a line out.

import { createInterface } from 'node:readline'
import mqtt from 'mqtt'
import { session } from './mqtt_session.js'

const act = session(mqtt, process.argv[2], (event) =>
  process.stdout.write(JSON.stringify(event) + '\n'),
)
process.on('SIGTERM', () => process.exit(0))
for await (const line of createInterface({ input: process.stdin })) await act(JSON.parse(line))
process.exit(0)
