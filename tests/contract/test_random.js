// test_random.js - thousands of random requests (random.js): each gets one answer, of those that are documented; what is no strict
// JSON, or not what the schema allows, is never accepted. contract_system.c looks at the logs and at chat_api.faults afterwards.
//
// CHAT_TEST_REQUESTS (2000) says how many, CHAT_TEST_SEED (1) which: the same seed sends the same ones. By hand, at length:
//
//   CHAT_TEST_REQUESTS=10000 CHAT_TEST_SEED=$RANDOM ctest --preset dev -R 'template|contract/random' --verbose
'use strict'

const assert = require('assert')
const contract = require('./contract')
const RandomRequests = require('./random')
const { Client, complaints, seen, sql, token } = require('./system')
const run = require('./report')

const REQUESTS = Number(process.env.CHAT_TEST_REQUESTS || 2000)
const SEED = Number(process.env.CHAT_TEST_SEED || 1)
const USERS = 6
const FIRST_USER = 100

function makeWorld() {
  sql(`
    INSERT INTO chat.users (id, username) SELECT ${FIRST_USER} + n, 'user' || n FROM generate_series(0, ${USERS - 1}) AS n;
    UPDATE chat.users SET moderator = true WHERE id >= ${FIRST_USER};
    INSERT INTO chat.conversations (id, type, name, is_public)
      SELECT 100 + n, CASE n % 3 WHEN 0 THEN 'channel' ELSE 'group' END::chat.conversation_type, 'c' || n, n = 0
      FROM generate_series(0, 8) AS n;
    INSERT INTO chat.conversation_participants (conversation_id, user_id, role)
      SELECT 100 + n, ${FIRST_USER} + u, (ARRAY['owner', 'admin', 'member', 'reader'])[1 + (u + n) % 4]::chat.participant_role
      FROM generate_series(0, 8) AS n, generate_series(0, ${USERS - 1}) AS u WHERE (u + n) % 5 <> 4;
    INSERT INTO chat.conversations (id, type, first_user_id, second_user_id)
      VALUES (109, 'direct', ${FIRST_USER}, ${FIRST_USER + 1});
    SELECT setval(pg_get_serial_sequence('chat.users', 'id'), 200),
      setval(pg_get_serial_sequence('chat.conversations', 'id'), 200),
      setval(pg_get_serial_sequence('chat.devices', 'id'), 1000)`)
  const users = Array.from({ length: USERS }, (_, i) => FIRST_USER + i)
  const conversations = Array.from({ length: 10 }, (_, i) => 100 + i)
  const some = [...users, ...users, 1, 2, 3, 4, 201, 999999]
  return {
    user: some,
    owner: some,
    members: some,
    mentions: some,
    conversation: [...conversations, ...conversations, 1, 2, 3, 201, 202, 203, 999999],
    device: [1001, 1002, 1003, 1010, 1020, 999999],
    id: Array.from({ length: 6 }, (_, i) => `9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c1${i}`),
    username: ['user0', 'user1', 'alice', 'nobody', 'newcomer', 'Ünïcode', "o'neill"],
    password: ['a good password', 'x'.repeat(1000)],
    sha256: ['ab'.repeat(32)],
    email: ['a@example.org', "'@x", 'x@y'],
    device_token: ['a.b.c', token(FIRST_USER), 'x'],
    token: ['ab'.repeat(32), 'x:y'],
    p256dh: ['BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU', 'AA', 'B'.repeat(87)],
    auth: ['AAAAAAAAAAAAAAAAAAAAAA', 'A'],
    endpoint: ['https://push.example.org/x', 'https://127.0.0.1/', 'http://x.org', 'https://localhost/']
  }
}

// One connection's work; another one takes its place where it is signed out.
class Asker {
  constructor(index, pools) {
    this.version = index % 2 ? 5 : 4
    this.user = FIRST_USER + ((index >> 1) % USERS)
    this.guest = index >= 2 * USERS
    this.requests = new RandomRequests(SEED + index, pools)
  }

  // Again where somebody else's request has signed the device out before all was subscribed to.
  async connect() {
    for (;;) {
      try {
        return await this.signIn()
      } catch (error) {
        if (complaints.length > 0 || !this.isSignedOut()) throw error
      }
    }
  }

  async signIn() {
    this.device = null
    if (this.guest) {
      this.client = await Client.connect(this.version)
      return
    }
    this.device = sql(`INSERT INTO chat.devices (user_id, name) VALUES (${this.user}, 'random') RETURNING id`)
    this.client = await Client.connect(this.version, token(this.user, { device: Number(this.device) }))
    await this.client.subscribe(`chat/user/${this.user}/inbox`)
    for (let i = 0; i < 10; i++) await this.client.subscribe(`chat/${100 + i}/messages`)
  }

  isSignedOut() {
    return this.device && sql(`SELECT count(*) FROM chat.devices WHERE id = ${this.device} AND revoked_at IS NOT NULL`) === '1'
  }

  // True where the answer came; false where the session was signed out meanwhile, as requests may do.
  async ask({ method, bytes, expect }) {
    let answer
    try {
      answer = await this.client.askBytes(method, bytes, expect !== 'topic')
    } catch (error) {
      if (complaints.length === 0 && this.client.ended && this.isSignedOut()) return false
      throw error
    }
    this.judge(method, expect, answer)
    return true
  }

  judge(method, expect, answer) {
    const code = answer.error ? answer.error.code : null
    if (code) outcomes.set(code, (outcomes.get(code) || 0) + 1)
    else accepted.set(method, (accepted.get(method) || 0) + 1)
    if (this.guest && expect !== 'long' && !(contract.methods.get(method) || {}).guests) {
      assert.strictEqual(code, expect === 'topic' ? 'not_found' : 'unauthenticated')
    } else if (expect === 'json') {
      assert.strictEqual(code, 'invalid_json')
    } else if (expect === 'long') {
      assert.strictEqual(code, 'too_long')
    } else if (expect === 'schema') {
      assert.ok(code, 'accepted, though the schema does not allow it')
    } else if (expect === 'unknown' || expect === 'topic') {
      assert.strictEqual(code, 'not_found')
    }
    assert.notStrictEqual(code, 'internal')
  }

  async work(count) {
    await this.connect()
    for (let i = 0; i < count; i++) {
      const request = this.requests.next()
      try {
        if (!(await this.ask(request)) || this.client.ended || (request.method === 'auth.logout' && this.isSignedOut())) {
          await this.client.close().catch(() => {})
          await this.connect()
        }
      } catch (error) {
        error.message +=
          `\nMQTT ${this.version}, user ${this.guest ? 'guest' : this.user}, ${request.method}, expected ${request.expect}: ` +
          JSON.stringify(request.bytes.subarray(0, 300).toString('latin1'))
        throw error
      }
      this.client.received = []
    }
    await this.client.close()
  }
}

const outcomes = new Map()
const accepted = new Map()

run({
  [`${REQUESTS} random requests, seed ${SEED}`]: async () => {
    const began = Date.now()
    const pools = makeWorld()
    const askers = Array.from({ length: 2 * USERS + 2 }, (_, i) => new Asker(i, pools))
    const share = Math.ceil(REQUESTS / (2 * USERS + 0.5)) // guests have little to ask
    await Promise.all(askers.map((asker) => asker.work(asker.guest ? Math.ceil(share / 4) : share)))
    console.log(
      `${(Date.now() - began) / 1000} s; accepted ${[...accepted.values()].reduce((a, b) => a + b, 0)}, refused`,
      Object.fromEntries(outcomes)
    )
  },
  // What needs a secret is left out: a random request has none.
  'methods were asked with success too': () => {
    const secret = new Set(['auth.login', 'auth.refresh', 'auth.change_password'])
    const never = [...contract.methods.keys()].filter((name) => !accepted.has(name) && !secret.has(name))
    if (REQUESTS >= 10000) assert.deepStrictEqual(never, [])
    else assert.ok(never.length <= 10, `never accepted: ${never}`)
  },
  'all that came fits the contract': () => {
    assert.deepStrictEqual(complaints, [])
    assert.ok(seen.size > 0)
  }
})
