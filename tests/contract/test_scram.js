// test_scram.js - MQTT 5 enhanced authentication by SCRAM-SHA-256 (RFC 5802, 7677) with the client that browsers use: mqtt.js and
// its handleAuth. A verifier is made by auth.register, another by PostgreSQL itself.
'use strict'

const assert = require('assert')
const crypto = require('crypto')
const mqtt = require('mqtt')
const { Client, sql, system } = require('./system')
const run = require('./report')

const METHOD = 'SCRAM-SHA-256'
const PASSWORD = 'päss wörd Ⅸ' // prepared as RFC 4013 says before it is hashed: NFKC makes IX of the last
const REFUSED = 0x87
const DEADLINE_MS = 60000

const hmac = (key, text) => crypto.createHmac('sha256', key).update(text).digest()
const attributes = (message) => Object.fromEntries(message.split(',').map((part) => [part[0], part.slice(2)]))

// The client's side of one exchange, as a library would have it.
class Exchange {
  constructor(name, password) {
    this.password = password.normalize('NFKC')
    this.bare = `n=${name.replace(/=/g, '=3D').replace(/,/g, '=2C')},r=${crypto.randomBytes(18).toString('base64')}`
  }

  get first() {
    return Buffer.from(`n,,${this.bare}`)
  }

  final(serverFirst) {
    const { r: nonce, s: salt, i: iterations } = attributes(serverFirst)
    assert.ok(nonce.startsWith(attributes(this.bare).r) && nonce.length > attributes(this.bare).r.length)
    assert.ok(Number(iterations) >= 4096)
    const salted = crypto.pbkdf2Sync(this.password, Buffer.from(salt, 'base64'), Number(iterations), 32, 'sha256')
    const clientKey = hmac(salted, 'Client Key')
    const withoutProof = `c=${Buffer.from('n,,').toString('base64')},r=${nonce}`
    const message = `${this.bare},${serverFirst},${withoutProof}`
    const signature = hmac(crypto.createHash('sha256').update(clientKey).digest(), message)
    this.expected = `v=${hmac(hmac(salted, 'Server Key'), message).toString('base64')}`
    return Buffer.from(`${withoutProof},p=${clientKey.map((byte, i) => byte ^ signature[i]).toString('base64')}`)
  }
}

// One attempt: the connected client, or the reason code of CONNACK, or 'closed' without one.
function attempt(clientId, name, password) {
  const exchange = new Exchange(name, password)
  const client = mqtt.connect({
    host: '127.0.0.1',
    port: system.port,
    protocolVersion: 5,
    clientId,
    reconnectPeriod: 0,
    properties: { authenticationMethod: METHOD, authenticationData: exchange.first }
  })
  client.handleAuth = (packet, callback) => {
    const authenticationData = exchange.final(packet.properties.authenticationData.toString())
    callback(null, {
      cmd: 'auth',
      reasonCode: 0x18,
      properties: { authenticationMethod: METHOD, authenticationData }
    })
  }
  return new Promise((resolve, reject) => {
    client.once('connect', (packet) => {
      const said = String(packet.properties && packet.properties.authenticationData)
      if (said === exchange.expected) resolve(client)
      else reject(new Error(`the server's signature is ${said}, not ${exchange.expected}`))
    })
    client.once('error', (error) => (error.code > 0 ? resolve(error.code) : reject(error)))
    client.once('close', () => resolve('closed'))
  })
}

// A name that has not been asked for lately is closed once, while its verifier is loaded.
async function signIn(clientId, name, password) {
  for (const end = Date.now() + DEADLINE_MS; ;) {
    const result = await attempt(clientId, name, password)
    if (result !== 'closed') return result
    if (Date.now() > end) throw new Error(`no CONNACK for ${name}`)
  }
}

// Asks the server who one is; undefined where it ends the connection first.
async function askWho(client, clientId) {
  const closed = new Promise((resolve) => (client.connected ? client.once('close', () => resolve({})) : resolve({})))
  const answer = new Promise((resolve) => client.once('message', (_, payload) => resolve(JSON.parse(payload))))
  const asked = client
    .subscribeAsync(`chat/response/${clientId}`, { qos: 1 })
    .then(() => client.publishAsync('chat/request/user.get', '{}', { qos: 1 }))
    .then(() => answer)
    .catch((error) => (client.connected ? Promise.reject(error) : closed))
  const { result } = await Promise.race([asked, closed])
  if (result) await client.endAsync()
  return result && result.user.id
}

// Signs in and asks the server who one is. That the verifier is a new one may be heard when it has let somebody in already, who is
// told to come again.
async function whoAmI(clientId, name, password) {
  for (const end = Date.now() + DEADLINE_MS; ;) {
    const client = await signIn(clientId, name, password)
    assert.ok(client instanceof mqtt.MqttClient, `refused: ${client}`)
    const id = await askWho(client, clientId)
    if (id) return id
    if (Date.now() > end) throw new Error(`${name} is not let in for long`)
  }
}

let user = 0

run({
  'a password that was registered here': async () => {
    const guest = await Client.connect(5)
    const { result } = await guest.ask('auth.register', { username: 'Grace', password: PASSWORD })
    await guest.close()
    user = result.user_id
    assert.strictEqual(await whoAmI(`${user}-scram`, 'grace', PASSWORD), user)
    assert.strictEqual(await whoAmI('scram-1', 'GRACE', PASSWORD), user)
  },

  'a verifier that PostgreSQL made': async () => {
    sql(`SET password_encryption = 'scram-sha-256'; CREATE ROLE heidi PASSWORD '${PASSWORD}'`)
    const id = Number(
      sql(`WITH made AS (INSERT INTO chat.users (username) VALUES ('heidi') RETURNING id)
        INSERT INTO chat.credentials (user_id, verifier) SELECT id, rolpassword FROM made, pg_authid WHERE rolname = 'heidi'
        RETURNING user_id`)
    )
    assert.strictEqual(await whoAmI(`${id}-scram`, 'heidi', PASSWORD), id)
  },

  'a wrong password, and a name that nobody has': async () => {
    assert.strictEqual(await signIn('scram-2', 'grace', `${PASSWORD}.`), REFUSED)
    assert.strictEqual(await signIn('scram-2', 'nobody', PASSWORD), REFUSED)
    assert.strictEqual(await whoAmI('scram-2', 'grace', PASSWORD), user)
  },

  "another user's client id": async () => {
    assert.strictEqual(await signIn(`${user + 1}-scram`, 'grace', PASSWORD), REFUSED)
  },

  'the new password, once it was changed': async () => {
    const client = await signIn(`${user}-scram`, 'grace', PASSWORD)
    assert.ok(client instanceof mqtt.MqttClient)
    const closed = new Promise((resolve) => client.once('close', resolve))
    await client.subscribeAsync(`chat/response/${user}-scram`, { qos: 1 })
    const parameters = JSON.stringify({ old_password: PASSWORD, new_password: 'another one' })
    await client.publishAsync('chat/request/auth.change_password', parameters, { qos: 1 })
    await closed // by the server: what the old password let in ends
    assert.strictEqual(await signIn('scram-3', 'grace', PASSWORD), REFUSED)
    assert.strictEqual(await whoAmI('scram-3', 'grace', 'another one'), user)
  }
})
