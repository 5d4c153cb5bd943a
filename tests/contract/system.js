// system.js - the system that contract_system.c has started, and clients of it. Every payload that a client receives is held
// against the contract; what does not fit ends the test.
'use strict'

const { spawnSync } = require('child_process')
const crypto = require('crypto')
const fs = require('fs')
const mqtt = require('mqtt')
const contract = require('./contract')

const system = JSON.parse(process.env.CHAT_SYSTEM || '{}')
const DEADLINE_MS = 60000
// A conversation that does not exist.
const NOWHERE = 'chat/8796093022206/messages'

// The kinds of payloads that have come, for whoever asks whether all have.
const seen = new Map()
// What did not fit the contract, whoever was waiting.
const complaints = []

function sql(statement) {
  const done = spawnSync('psql', ['-X', '-q', '-t', '-A', '-v', 'ON_ERROR_STOP=1', '-d', system.database, '-c', statement], {
    encoding: 'utf8'
  })
  if (done.status !== 0) throw new Error(`psql: ${done.stderr}`)
  return done.stdout.trim()
}

function token(user, claims = {}) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const head =
    encode({ alg: 'ES256', typ: 'JWT' }) +
    '.' +
    encode({ sub: String(user), exp: Math.floor(Date.now() / 1000) + 3600, ...claims })
  const key = { key: fs.readFileSync(system.private_key), dsaEncoding: 'ieee-p1363' }
  return head + '.' + crypto.sign('sha256', Buffer.from(head), key).toString('base64url')
}

let clientCount = 0

class Client {
  // password: a token; none: a guest.
  static async connect(version, password) {
    const client = new Client()
    client.version = version
    client.id = password ? `contract-${++clientCount}` : 'guest-' + crypto.randomBytes(16).toString('hex')
    client.received = []
    client.waiting = []
    client.method = null // of the request that is not answered yet
    client.mqtt = mqtt.connect({
      host: '127.0.0.1',
      port: system.port,
      protocolVersion: version,
      clientId: client.id,
      reconnectPeriod: 0,
      clean: true,
      ...(password ? { username: 'anyone', password } : {})
    })
    client.mqtt.on('message', (topic, payload, packet) => client.take(topic, payload, packet.properties))
    client.mqtt.on('error', (error) => client.end(error))
    client.mqtt.on('close', () => client.end(new Error('the connection has ended')))
    await new Promise((resolve, reject) => {
      client.mqtt.once('connect', resolve)
      client.waiting.push({ test: () => false, reject })
    })
    client.waiting = []
    client.answers = `chat/response/${client.id}`
    await client.subscribe(client.answers)
    if (password) await client.awaitLoaded()
    return client
  }

  // Until the plugin knows the client's memberships nothing is readable, and subscriptions are granted and silent. That it says no
  // to one is the proof that it knows.
  async awaitLoaded() {
    for (const end = Date.now() + DEADLINE_MS; await this.subscribe(NOWHERE);) {
      if (Date.now() > end) throw new Error(`the plugin does not load ${this.id}`)
      await this.mqtt.unsubscribeAsync(NOWHERE)
    }
  }

  end(error) {
    this.ended = error
    for (const { reject } of this.waiting.splice(0)) reject(error)
  }

  take(topic, payload, properties) {
    const method = topic === this.answers ? this.method : null
    const said = contract.judge(topic, payload, properties, this.version, method)
    if (said.complaint) {
      const text = `${topic}${method ? ` (${method.name})` : ''}: ${said.complaint}\n${payload.toString().slice(0, 2000)}`
      complaints.push(text)
      this.end(new Error(text))
      return
    }
    seen.set(said.kind, (seen.get(said.kind) || 0) + 1)
    if (said.payload.event) seen.set(`event ${said.payload.event}`, 1)
    this.received.push({ topic, payload: said.payload, properties })
    this.look()
  }

  look() {
    for (const wait of this.waiting.slice()) {
      const at = this.received.findIndex(wait.test)
      if (at < 0) continue
      this.waiting.splice(this.waiting.indexOf(wait), 1)
      wait.resolve(this.received.splice(at, 1)[0])
    }
  }

  // The next payload on the topic for which test(payload) is true.
  receive(topic, test = () => true, what = '') {
    if (this.ended) return Promise.reject(this.ended)
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`nothing has come on ${topic} ${what}`)), DEADLINE_MS)
      const wait = {
        test: (message) => message.topic === topic && test(message.payload),
        resolve: (message) => {
          clearTimeout(timer)
          resolve(message)
        },
        reject: (error) => {
          clearTimeout(timer)
          reject(error)
        }
      }
      this.waiting.push(wait)
      this.look()
    })
  }

  // False where it is refused.
  async subscribe(topic) {
    try {
      const granted = await this.mqtt.subscribeAsync(topic, { qos: 1 })
      return granted.every(({ qos }) => qos < 0x80)
    } catch (error) {
      if (this.ended) throw this.ended
      return false
    }
  }

  // A refusal is told by an answer too: PUBACK's reason is not looked at.
  publish(topic, payload, properties) {
    this.mqtt.publish(topic, payload, { qos: 1, ...(this.version >= 5 && properties ? { properties } : {}) }, () => {})
  }

  // Asks with these bytes and returns the answer's payload. Where the very topic is refused, no correlation data comes back.
  async askBytes(name, bytes, correlated = true) {
    const correlationData = crypto.randomBytes(8)
    this.method = contract.methods.get(name) || null
    const answer = this.receive(this.answers, undefined, `to ${name} ${bytes.toString().slice(0, 300)}`)
    this.publish(`chat/request/${name}`, bytes, { responseTopic: this.answers, correlationData })
    const { payload, properties } = await answer
    this.method = null
    if (correlated && this.version >= 5 && !correlationData.equals(properties.correlationData || Buffer.alloc(0))) {
      throw new Error(`${name}: the correlation data did not come back`)
    }
    return payload
  }

  async ask(name, parameters) {
    const id = `r${crypto.randomInt(1e9)}`
    const payload = await this.askBytes(name, Buffer.from(JSON.stringify({ request_id: id, ...parameters })))
    if (payload.request_id !== id) throw new Error(`${name}: request_id did not come back: ${JSON.stringify(payload)}`)
    return payload
  }

  async close() {
    const closed = this.closed()
    if (!this.ended) this.mqtt.end()
    await closed
  }

  async closed() {
    if (!this.ended) await new Promise((resolve) => this.mqtt.once('close', resolve))
  }
}

module.exports = { Client, complaints, seen, sql, system, token }
