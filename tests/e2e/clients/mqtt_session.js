// What an MQTT client is told to do, and what it says of it, for mqtt.js in Node.js and in a page.
//
// A command is an object whose `do` names it; mqtt_scripted.py has the list. Payloads are
// hexadecimal. Only this file knows mqtt.js.

const AT_ONCE = 500 // mqtt.js leaves it to its user to keep the server's Receive Maximum

const hexOf = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

const bytesOf = (mqtt, hex) => {
  const bytes = new Uint8Array(hex.length / 2)
  for (let at = 0; at < bytes.length; at++) bytes[at] = parseInt(hex.substr(2 * at, 2), 16)
  // mqtt.js wants the Buffer that it brings along itself where there is none
  return typeof Buffer === 'undefined' ? bytes : Buffer.from(bytes.buffer)
}

// mqtt.js keeps user properties as an object of lists, so order holds per name only.
const pairsOf = (user = {}) =>
  Object.entries(user).flatMap(([name, values]) => [values].flat().map((value) => [name, value]))

const userOf = (pairs) => {
  const user = {}
  for (const [name, value] of pairs) user[name] = [...(user[name] ?? []), value]
  return user
}

const propertiesOf = (mqtt, { user, response, correlation, type }) => {
  const properties = {}
  if (user.length) properties.userProperties = userOf(user)
  if (response) properties.responseTopic = response
  if (correlation) properties.correlationData = bytesOf(mqtt, correlation)
  if (type) properties.contentType = type
  return properties
}

const arrived = (topic, payload, packet) => {
  const said = packet.properties ?? {}
  return {
    is: 'message',
    topic,
    payload: hexOf(payload),
    qos: packet.qos,
    retain: packet.retain,
    user: pairsOf(said.userProperties),
    response: said.responseTopic ?? '',
    correlation: hexOf(said.correlationData ?? []),
    type: said.contentType ?? '',
  }
}

export function session(mqtt, url, say) {
  let client
  let version
  let unacknowledged = []

  const actions = {
    async connect({ id, version: asked, clean, will }) {
      version = asked
      client = mqtt.connect(url, {
        clientId: id,
        protocolVersion: version,
        clean,
        reconnectPeriod: 0,
        connectTimeout: 120_000,
        properties:
          version === 5
            ? { receiveMaximum: 1000, sessionExpiryInterval: clean ? 0 : 3600 }
            : undefined,
        will: will && { ...will, payload: bytesOf(mqtt, will.payload) },
      })
      client.on('message', (topic, payload, packet) => say(arrived(topic, payload, packet)))
      await new Promise((resolve, reject) => client.once('connect', resolve).once('error', reject))
      say({ is: 'connected' })
    },

    async subscribe({ filter, qos }) {
      const granted = await client.subscribeAsync(filter, { qos })
      say({ is: 'subscribed', qos: granted.map((one) => one.qos) })
    },

    async publish(command) {
      const { topic, payload, qos, retain } = command
      const properties = version === 5 ? propertiesOf(mqtt, command) : undefined
      const acknowledged = client
        .publishAsync(topic, bytesOf(mqtt, payload), { qos, retain, properties })
        .then(() => say({ is: 'published' }))
      unacknowledged.push(acknowledged)
      if (unacknowledged.length === AT_ONCE) await Promise.all(unacknowledged.splice(0))
    },

    async leave() {
      await Promise.all(unacknowledged.splice(0))
      await client.endAsync()
      say({ is: 'left' })
    },

    async cut() {
      await client.endAsync(true)
      say({ is: 'cut' })
    },
  }
  return (command) => actions[command.do](command)
}
