// test_replicas.js - random histories of messages, edits, deletions, reactions and expiry, by members with more and fewer rights, of
// which many are refused: whoever followed the delivered entries, whoever reads the log afresh in pages of any size, whoever fetched parts of
// it now and then, and whoever came late and followed from there, ends with the same state (replica.js), which is the table's.
//
// CHAT_TEST_HISTORIES (4) says how many, CHAT_TEST_ACTIONS (150) how long each, CHAT_TEST_SEED (1) which. By hand, at length:
//
//   CHAT_TEST_HISTORIES=200 CHAT_TEST_SEED=7 ctest --preset dev -R 'template|contract/replicas' --verbose
'use strict'

const assert = require('assert')
const { Client, complaints, sql, token } = require('./system')
const { Follower, Replica } = require('./replica')
const generator = require('./random').generator
const run = require('./report')

const HISTORIES = Number(process.env.CHAT_TEST_HISTORIES || 4)
const ACTIONS = Number(process.env.CHAT_TEST_ACTIONS || 150)
const SEED = Number(process.env.CHAT_TEST_SEED || 1)
const ROLES = ['owner', 'admin', 'member', 'member', 'reader']
const FIRST_USER = 300
const KINDS = ['👍', '😀', 'ok']

const { next: random, pick } = generator(SEED)
const below = (n) => Math.floor(random() * n)

// What became of what was tried: "edit" is one that was stored, "edit forbidden" one that was not.
const outcomes = new Map()
// Of each user one connection that asks and waits for the answer, and one that publishes and does not.
let writers, publishers
const count = (what) => outcomes.set(what, (outcomes.get(what) || 0) + 1)

async function makeUsers() {
  sql(`INSERT INTO chat.users (id, username)
    SELECT ${FIRST_USER} + n, 'replica' || n FROM generate_series(0, ${ROLES.length - 1}) AS n`)
  const connect = () => Promise.all(ROLES.map((_, i) => Client.connect(5, token(FIRST_USER + i))))
  writers = await connect()
  publishers = await connect()
}

function makeConversation() {
  const id = Number(sql(`INSERT INTO chat.conversations (type) VALUES ('group') RETURNING id`))
  ROLES.forEach((role, i) =>
    sql(`INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (${id}, ${FIRST_USER + i}, '${role}')`)
  )
  return id
}

// Who says what next: about any of the newest messages, now and then about something else, whether it may be or not; every other time
// by who may.
function anyMove(followers) {
  const { replica } = followers[0]
  const messages = [...replica.entries.values()].filter(({ ref }) => !ref).slice(-8)
  const target = random() < 0.05 || !messages.length ? { seq: 1 + below(replica.held + 2) } : pick(messages)
  const [ref, anybody, sure] = [target.seq, below(ROLES.length), random() < 0.5]
  const author = sure && target.from ? target.from - FIRST_USER : anybody
  const choice = messages.length ? random() : 0
  if (choice < 0.35) {
    return [anybody, {
      body: `words ${below(1000)}`,
      ...(random() < 0.2 ? { expires_in: 1 } : {}),
      ...(random() < 0.2 ? { meta: { n: below(10) }, mentions: [FIRST_USER + below(ROLES.length)] } : {}),
      ...(random() < 0.1 ? { type: 'image', attachments: [{ key: 'k' }] } : {})
    }]
  }
  if (choice < 0.55) return [author, { type: 'edit', ref, body: `edited ${below(1000)}` }]
  if (choice < 0.62) return [author, { type: 'delete', ref }]
  const given = followers.flatMap((follower, user) =>
    [...follower.replica.entries.values()].flatMap(({ seq, mine }) => [...(mine || [])].map((body) => [user, seq, body]))
  )
  const remove = random() < 0.5
  const again = given.length > 0 && (remove ? sure : random() < 0.1)
  const [user, about, body] = again ? pick(given) : [anybody, ref, pick(KINDS)]
  return [user, { type: 'reaction', ref: about, body, ...(remove ? { remove } : {}) }]
}

async function send(writer, conversation, envelope) {
  const answer = await writer.ask('message.send', { conversation, ...envelope })
  const type = envelope.type || 'text'
  count(answer.error ? `${type} ${answer.error.code}` : envelope.remove ? 'removal' : type)
  return answer.result ? answer.result.seq : 0
}

// Publishes of several members at once, which land in one batch; what comes of them the followers see.
async function burst(followers, conversation) {
  const publishes = []
  for (let i = 2 + below(6); i > 0; i--) {
    const [user, envelope] = anyMove(followers)
    publishes.push(publishers[user].mqtt.publishAsync(`chat/${conversation}/send`, JSON.stringify(envelope), { qos: 1 }))
  }
  await Promise.allSettled(publishes) // what is refused at once has a PUBACK that says so
}

async function follow(user, conversation, version, paused = false) {
  const follower = new Follower(await Client.connect(version, token(user)), user, conversation, paused)
  assert.ok(await follower.client.subscribe(follower.topic))
  return follower
}

// Comes late: what is delivered waits until the device has caught up, by sync or by history.
async function comeLate(user, conversation) {
  const follower = await follow(user, conversation, pick([4, 5]), true)
  const limit = 1 + below(40)
  const { replica, client } = follower
  for (let more = true; more;) {
    const { result } = await client.ask('message.sync', { cursors: { [conversation]: replica.held }, limit })
    const page = result.conversations.find(({ id }) => id === conversation)
    if (page) replica.page(page.messages, page.last_seq)
    more = page && page.more
  }
  follower.resume()
  return follower
}

// Reads the whole log, from its end to its beginning or the other way round.
async function readAfresh(client, user, conversation) {
  const replica = new Replica(user, conversation)
  const backwards = random() < 0.5
  const pages = []
  for (let place = null, more = true; more;) {
    const { result } = await client.ask('message.history', {
      conversation,
      limit: 1 + below(50),
      ...(backwards ? (place ? { before: place } : {}) : { after: place || 0 })
    })
    pages.push(result)
    more = result.more
    if (result.messages.length) place = result.messages[backwards ? 0 : result.messages.length - 1].seq
  }
  for (const { messages, last_seq: last } of backwards ? pages.reverse() : pages) replica.page(messages, last)
  return replica
}

// In pieces, while things happen: a device that looks now and then.
async function lookIn(client, replica) {
  const { result } = await client.ask('message.sync', { cursors: { [replica.conversation]: replica.held }, limit: 1 + below(20) })
  const page = result.conversations.find(({ id }) => id === replica.conversation)
  if (page) replica.page(page.messages, page.last_seq)
  return page !== undefined
}

function fromTable(conversation) {
  return sql(`SELECT jsonb_agg(jsonb_build_array(seq, type, body) ORDER BY seq) FROM chat.messages
    WHERE conversation_id = ${conversation} AND type NOT IN ('reaction', 'edit', 'delete', 'system')`)
}

function compare(replicas, now) {
  const [first, ...others] = replicas
  const expected = first.replica.lines(now)
  for (const { name, replica } of others) {
    if (replica.user === first.replica.user) assert.deepStrictEqual(replica.lines(now), expected, `${name} and ${first.name} differ`)
  }
}

async function history(number) {
  const conversation = makeConversation()
  const followers = await Promise.all(ROLES.map((_, i) => follow(FIRST_USER + i, conversation, i % 2 ? 5 : 4)))
  const looker = { user: FIRST_USER + below(ROLES.length) }
  looker.client = await Client.connect(5, token(looker.user))
  looker.replica = new Replica(looker.user, conversation)
  const late = []
  for (let i = 0; i < ACTIONS; i++) {
    const choice = random()
    if (choice < 0.15) {
      await burst(followers, conversation)
    } else if (choice < 0.2) {
      await lookIn(looker.client, looker.replica)
    } else if (choice < 0.22) {
      late.push(await comeLate(FIRST_USER + below(ROLES.length), conversation))
    } else if (choice < 0.24) {
      const rule = pick([null, 1, 3600])
      const answer = await pick(writers).ask('conversation.update', { conversation, expires_in: rule })
      count(answer.error ? `rule ${answer.error.code}` : 'rule')
    } else {
      const [user, envelope] = anyMove(followers)
      await send(writers[user], conversation, envelope)
    }
  }
  // Committed after all that was accepted before: a conversation has one lane.
  const last = await send(writers[0], conversation, { body: 'the end' })
  await Promise.all([...followers, ...late].map((follower) => follower.until(last)))
  while (sql(`SELECT count(*) FROM chat.messages WHERE conversation_id = ${conversation} AND expires_at > now()
    AND expires_at < now() + interval '1 minute'`) !== '0');
  while (await lookIn(looker.client, looker.replica));

  const now = Date.now()
  for (const { replica, client } of followers) {
    compare([
      { name: 'the follower', replica },
      { name: 'who reads afresh', replica: await readAfresh(client, replica.user, conversation) },
      { name: 'who looked in', replica: looker.replica },
      ...late.map((follower) => ({ name: 'who came late', replica: follower.replica }))
    ], now)
  }
  while (sql(`SELECT count(*) FROM chat.messages WHERE conversation_id = ${conversation} AND expires_at <= now() AND type <> 'expired'`) !== '0');
  const shown = followers[0].replica.lines(now).map((line) => JSON.parse(line))
  assert.deepStrictEqual(
    JSON.parse(fromTable(conversation)),
    shown
      .filter(([, second]) => typeof second !== 'string' || second === 'deleted' || second === 'expired')
      .map(([seq, second]) => (typeof second === 'string' ? [seq, second, null] : [seq, Object.fromEntries(second).type, Object.fromEntries(second).body]))
      .filter(([, type]) => type !== 'system'),
    'what is shown is what is in the table'
  )
  const texts = sql(`SELECT count(*) FROM chat.messages a WHERE conversation_id = ${conversation} AND type = 'edit' AND body IS NOT NULL
    AND body IS DISTINCT FROM (SELECT body FROM chat.messages WHERE conversation_id = a.conversation_id AND seq = a.ref)`)
  assert.strictEqual(texts, '0', 'no edit keeps a text that its message has not')
  await Promise.all([...followers, ...late].map(({ client }) => client.close()))
  await looker.client.close()
  return number
}

run({
  [`${HISTORIES} random histories, seed ${SEED}`]: async () => {
    console.log(`seed ${SEED}`)
    await makeUsers()
    for (let i = 0; i < HISTORIES; i++) await history(i)
    console.log(Object.fromEntries([...outcomes].sort()))
  },
  'everything was tried, with success and in vain': () => {
    // Those of which at least twenty are to be expected.
    const wanted = ['text', 'edit', 'delete', 'reaction', 'removal', 'edit forbidden', 'text forbidden', 'reaction not_found']
    if (HISTORIES * ACTIONS >= 600) assert.deepStrictEqual(wanted.filter((what) => !outcomes.has(what)), [])
  },
  'all that came fits the contract': () => assert.deepStrictEqual(complaints, [])
})
