// test_methods.js - every method at least once with success and once with an error, and every payload that the server publishes,
// on MQTT 3.1.1 and 5; all of it held against docs/asyncapi.yaml.
'use strict'

const assert = require('assert')
const contract = require('./contract')
const { Client, complaints, seen, sql, token } = require('./system')
const run = require('./report')

const UUID = '9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c1'
const PUSH_KEYS = {
  p256dh: 'BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU',
  auth: 'AAAAAAAAAAAAAAAAAAAAAA'
}

// "4 user.get ok", "5 user.get no"
const done = new Set()

// Asks for what is good by the schema, and returns the result.
async function ok(client, name, parameters = {}) {
  assert.strictEqual(contract.complaint(`#/components/schemas/${name}`, parameters), null)
  const answer = await client.ask(name, parameters)
  assert.ok(answer.result, `${name} ${JSON.stringify(parameters)}: ${JSON.stringify(answer)}`)
  done.add(`${client.version} ${name} ok`)
  return answer.result
}

async function no(client, name, parameters, code) {
  const answer = await client.ask(name, parameters)
  assert.strictEqual(
    answer.error && answer.error.code,
    code,
    `${name} ${JSON.stringify(parameters)}: ${JSON.stringify(answer)}`
  )
  done.add(`${client.version} ${name} no`)
}

const inbox = (user) => `chat/user/${user}/inbox`

async function accounts(version) {
  const guest = await Client.connect(version)
  const names = [`anna${version}`, `berta${version}`, `clara${version}`]
  const made = []
  for (const username of names) {
    made.push(
      await ok(guest, 'auth.register', {
        username,
        password: 'a good password',
        email: `${username}@example.org`,
        display_name: username.toUpperCase(),
        device: { name: 'Phone', type: 'mobile' }
      })
    )
  }
  await no(guest, 'auth.register', { username: names[0].toUpperCase(), password: 'a good password' }, 'conflict')
  await no(guest, 'auth.register', { username: 'ab', password: 'a good password' }, 'invalid_field')
  const login = await ok(guest, 'auth.login', { username: names[0], password: 'a good password', device: { type: 'web' } })
  await no(guest, 'auth.login', { username: names[0], password: 'another password' }, 'unauthenticated')
  await no(guest, 'auth.login', { username: names[0] }, 'invalid_field')
  await guest.close()

  const anna = await Client.connect(version, login.token)
  const phone = await Client.connect(version, made[0].device_token)
  await anna.subscribe(inbox(login.user_id))
  await ok(phone, 'auth.refresh')
  await ok(anna, 'auth.refresh', { device_token: made[0].device_token })
  await no(anna, 'auth.refresh', {}, 'invalid_field')
  await no(anna, 'auth.refresh', { device_token: made[0].token }, 'unauthenticated')
  await no(
    anna,
    'auth.change_password',
    { old_password: 'another password', new_password: 'a better password' },
    'unauthenticated'
  )
  await ok(anna, 'auth.change_password', { old_password: 'a good password', new_password: 'a better password' })
  await phone.closed()
  await anna.receive(inbox(login.user_id), (event) => event.event === 'device_removed' && event.device === made[0].device_id)

  const berta = await Client.connect(version, made[1].token)
  const clara = await Client.connect(version, made[2].token)
  return { anna, berta, clara, ids: [login.user_id, made[1].user_id, made[2].user_id], device: login.device_id }
}

async function users({ anna, berta, ids: [a, b] }) {
  await ok(anna, 'user.get')
  await ok(anna, 'user.get', { user: b })
  await no(anna, 'user.get', { user: 999999 }, 'not_found')
  await ok(anna, 'user.update', {
    display_name: 'Anna',
    picture: 'https://example.org/a.png',
    status_text: null,
    privacy: { presence: 'nobody', read_receipts: true }
  })
  await anna.receive(inbox(a), (event) => event.event === 'profile')
  await no(anna, 'user.update', { privacy: 1 }, 'invalid_field')
  const found = await ok(anna, 'user.search', { query: 'bert', limit: 50 })
  assert.ok(found.users.some((user) => user.id === b))
  await no(anna, 'user.search', { query: 'x'.repeat(51) }, 'too_long')
  await ok(anna, 'user.block', { user: b })
  await anna.receive(inbox(a), (event) => event.event === 'blocked')
  await no(anna, 'user.block', { user: a }, 'invalid_field')
  assert.strictEqual((await ok(anna, 'user.blocked')).users.length, 1)
  await no(anna, 'user.blocked', { limit: 201 }, 'invalid_field')
  await no(berta, 'conversation.create', { type: 'direct', members: [a] }, 'not_found')
  await ok(anna, 'user.unblock', { user: b })
  await anna.receive(inbox(a), (event) => event.event === 'unblocked')
  await no(anna, 'user.unblock', {}, 'invalid_field')
}

async function devices({ anna, ids: [a], device }) {
  const made = Number(sql(`INSERT INTO chat.devices (user_id, type) VALUES (${a}, 'smart_tv') RETURNING id`))
  await anna.receive(inbox(a), (event) => event.event === 'device_added' && event.device === made)
  assert.strictEqual((await ok(anna, 'device.list')).devices.length, 2)
  await no(anna, 'device.list', { limit: 1 }, 'invalid_field')
  await ok(anna, 'device.update', {
    name: 'Laptop',
    push: { provider: 'webpush', app: 'web', subscription: { endpoint: 'https://push.example.org/x', keys: PUSH_KEYS } }
  })
  await ok(anna, 'device.update', { device: made, push: { provider: 'apns', app: 'tv', token: 'ab'.repeat(32) } })
  assert.ok(
    (await ok(anna, 'device.list')).devices.every((entry) => entry.push && (entry.current === true) === (entry.id === device))
  )
  await ok(anna, 'device.update', { push: null })
  await no(anna, 'device.update', { push: { provider: 'fcm', app: 'x' } }, 'invalid_field')
  await ok(anna, 'device.test_push', { device: made })
  await no(anna, 'device.test_push', {}, 'conflict')
  await no(anna, 'device.remove', { device: 999999 }, 'not_found')
  await ok(anna, 'device.remove', { device: made })
}

async function conversations(world) {
  const {
    anna,
    berta,
    clara,
    ids: [a, b, c]
  } = world
  await berta.subscribe(inbox(b))
  const direct = (await ok(anna, 'conversation.create', { type: 'direct', members: [b] })).conversation
  assert.strictEqual((await ok(berta, 'conversation.create', { type: 'direct', members: [a] })).conversation.id, direct.id)
  const group = (await ok(anna, 'conversation.create', { type: 'group', name: 'Lunch', members: [b], shows_history: true }))
    .conversation
  const channel = (await ok(anna, 'conversation.create', { type: 'channel', name: 'News', public: true })).conversation
  await no(anna, 'conversation.create', { type: 'direct', members: [b, c] }, 'invalid_field')
  await no(anna, 'conversation.create', { type: 'group', members: [999999] }, 'not_found')
  await berta.receive(inbox(b), (event) => event.event === 'added' && event.conversation === group.id)
  await ok(anna, 'conversation.list')
  await ok(anna, 'conversation.list', { after: direct.id, limit: 1 })
  await no(anna, 'conversation.list', { after: -1 }, 'invalid_field')
  await ok(anna, 'conversation.get', { conversation: group.id })
  await ok(clara, 'conversation.get', { conversation: channel.id })
  await no(clara, 'conversation.get', { conversation: group.id }, 'not_found')
  await ok(anna, 'conversation.update', { conversation: group.id, name: null, picture: 'x', shows_history: false })
  await ok(anna, 'conversation.update', { conversation: group.id, name: 'Dinner' })
  await no(berta, 'conversation.update', { conversation: group.id, name: 'Supper' }, 'forbidden')
  await ok(anna, 'conversation.add_members', { conversation: group.id, members: [c], role: 'reader' })
  await no(berta, 'conversation.add_members', { conversation: group.id, members: [c] }, 'forbidden')
  await ok(anna, 'conversation.members', { conversation: group.id })
  await no(clara, 'conversation.members', { conversation: channel.id }, 'forbidden')
  await ok(anna, 'conversation.set_role', { conversation: group.id, user: b, role: 'admin' })
  await berta.receive(inbox(b), (event) => event.event === 'changed' && event.role === 'admin')
  await no(berta, 'conversation.set_role', { conversation: group.id, user: a, role: 'reader' }, 'forbidden')
  for (const until of [0, Date.now() + 60000, null])
    await ok(berta, 'conversation.mute', { conversation: group.id, muted_until: until })
  await no(clara, 'conversation.mute', { conversation: channel.id, muted_until: 0 }, 'forbidden')
  await ok(clara, 'conversation.join', { conversation: channel.id })
  await no(clara, 'conversation.join', { conversation: direct.id }, 'not_found')
  await ok(berta, 'conversation.remove_members', { conversation: group.id, members: [c] })
  await no(berta, 'conversation.remove_members', { conversation: group.id, members: [a] }, 'forbidden')
  await no(anna, 'conversation.leave', { conversation: group.id }, 'forbidden')
  return { ...world, direct: direct.id, group: group.id, channel: channel.id }
}

// The nouns of a conversation, and what is published to its verbs.
async function topics({ anna, berta, ids: [a, b], group }) {
  const topic = (noun) => `chat/${group}/${noun}`
  const error = (payload) => payload.error !== undefined
  for (const client of [anna, berta]) {
    for (const noun of ['messages', 'receipts', 'typing']) assert.ok(await client.subscribe(topic(noun)), noun)
  }
  anna.publish(topic('send'), 'as typed')
  const first = (await berta.receive(topic('messages'), (message) => message.body === 'as typed')).payload
  const everything = {
    id: `${UUID}${anna.version}`,
    type: 'image',
    body: 'ünï',
    reply_to: first.seq,
    mentions: [b],
    attachments: [
      { key: 'k', name: 'a.jpg', type: 'image/jpeg', size: 12345, sha256: 'ab'.repeat(32), width: 1, height: 2, duration: 0 }
    ],
    expires_in: 86400,
    meta: { a: [null, 1.5] },
    reply: true
  }
  assert.strictEqual(contract.complaint('#/components/schemas/envelope', everything), null)
  anna.publish(topic('send'), JSON.stringify(everything))
  const sent = (await anna.receive(anna.answers, (payload) => payload.status === 'sent')).payload
  await berta.receive(topic('messages'), (message) => message.seq === sent.seq)
  await berta.receive(inbox(b), (event) => event.event === 'mention' && event.seq === sent.seq)
  for (const act of [
    { type: 'reaction', body: '👍' },
    { type: 'reaction', body: '👍', remove: true },
    { type: 'edit', body: 'edited' },
    { type: 'x-poll', body: '', ref: undefined }
  ]) {
    anna.publish(topic('send'), JSON.stringify({ ref: first.seq, ...act }))
    await berta.receive(topic('messages'), (message) => message.type === act.type && message.remove === act.remove)
  }
  anna.publish(topic('type'), '{"typing":true}')
  await berta.receive(topic('typing'), (payload) => payload.typing)
  anna.publish(topic('type'), '{"typing":false}')
  await berta.receive(topic('typing'), (payload) => !payload.typing)
  // Two devices: the one hears what the other has read.
  const other = await Client.connect(berta.version, token(b))
  await other.subscribe(inbox(b))
  berta.publish(topic('mark'), JSON.stringify({ delivered: sent.seq, read: sent.seq }))
  await anna.receive(topic('receipts'), ({ receipts }) =>
    receipts.some((receipt) => receipt.user === b && receipt.read === sent.seq)
  )
  await other.receive(inbox(b), (event) => event.event === 'read' && event.read === sent.seq)
  await other.close()

  // What is refused: by what is in it, by the rate of 3.1.1 and 5 alike with the id; at commit; by its topic.
  anna.publish(topic('send'), JSON.stringify({ id: `${UUID}${anna.version}`, body: 'something else' }))
  assert.strictEqual((await anna.receive(anna.answers, error)).payload.error.code, 'conflict')
  for (const [verb, payload] of [
    ['send', '{'],
    ['send', '{"typ":"text"}'],
    ['send', 'x'.repeat(100001)],
    ['mark', '{"read":99999}'],
    ['type', '{}']
  ]) {
    anna.publish(topic(verb), payload)
    const answer = (await anna.receive(anna.answers, error)).payload
    assert.strictEqual(answer.conversation, group)
  }
  anna.publish(topic('messages'), 'x')
  assert.strictEqual((await anna.receive(anna.answers, error)).payload.topic, topic('messages'))
  anna.publish('chat/999999/send', 'x')
  assert.strictEqual((await anna.receive(anna.answers, error)).payload.error.code, 'not_found')

  // More than is pushed after an outage.
  sql(`INSERT INTO chat.messages (conversation_id, body) SELECT ${group}, 'line ' || n FROM generate_series(1, 700) AS n`)
  await berta.receive(topic('messages'), (message) => message.behind === true)
  assert.ok(a)
}

async function messages({ anna, berta, clara, ids: [, b], group, direct, channel }) {
  const id = `${UUID}${anna.version + 4}`
  const sent = await ok(anna, 'message.send', { conversation: direct, id, body: 'a needle in the haystack', meta: {} })
  await ok(anna, 'message.send', { conversation: direct, id, body: 'a needle in the haystack', meta: {} })
  await no(anna, 'message.send', { conversation: direct, id, body: 'another' }, 'conflict')
  await no(anna, 'message.send', { conversation: direct, type: 'edit', body: 'x' }, 'invalid_field')
  for (const act of [
    { type: 'reaction', body: '👍' },
    { type: 'edit', body: 'a needle, in the haystack' }
  ]) {
    await ok(anna, 'message.send', { conversation: direct, ref: sent.seq, ...act })
  }
  const gone = await ok(berta, 'message.send', { conversation: direct, body: 'oops' })
  await ok(berta, 'message.send', { conversation: direct, type: 'delete', ref: gone.seq })
  const page = await ok(berta, 'message.history', { conversation: direct })
  assert.deepStrictEqual(
    page.messages.map((entry) => entry.type),
    ['text', 'reaction', 'edit', 'deleted', 'delete']
  )
  assert.ok(page.messages[0].edited_at && page.messages[0].reactions.length === 1)
  await ok(berta, 'message.history', { conversation: direct, after: sent.seq, limit: 200 })
  await ok(anna, 'message.history', { conversation: group, before: 30 })
  await ok(clara, 'message.history', { conversation: channel })
  await no(clara, 'message.history', { conversation: direct }, 'not_found')
  const sync = await ok(berta, 'message.sync', { cursors: { [direct]: 1, 999999: 5 } })
  assert.deepStrictEqual(sync.gone, [999999])
  assert.ok(sync.conversations.some((entry) => entry.new) && sync.conversations.some((entry) => entry.id === direct))
  await no(berta, 'message.sync', { cursors: { x: 1 } }, 'invalid_field')
  let hits = []
  for (const end = Date.now() + 60000; !hits.length && Date.now() < end;) {
    hits = (await ok(anna, 'message.search', { query: 'NEEDLE', limit: 5 })).hits
  }
  assert.ok(hits[0].highlight.some((part) => part.match))
  await ok(anna, 'message.search', { query: 'needle', conversation: direct, before: 9007199254740991 })
  await no(anna, 'message.search', { query: '!!' }, 'invalid_field')
  const status = await ok(anna, 'message.status', { conversation: direct, id })
  assert.strictEqual(status.members[0].user, b)
  await ok(clara, 'message.status', { conversation: channel, seq: 1 })
  await no(anna, 'message.status', { conversation: direct }, 'invalid_field')
  await no(anna, 'message.status', { conversation: direct, seq: 99999 }, 'not_found')
  // Refused at commit, and on record.
  const refused = (
    await anna.ask('message.send', { conversation: group, id: `${UUID}${anna.version - 4}`, reply_to: 99999, body: 'x' })
  ).error
  assert.strictEqual(refused.code, 'invalid_field')
  assert.strictEqual(
    (await ok(anna, 'message.status', { conversation: group, id: `${UUID}${anna.version - 4}` })).status,
    'refused'
  )
  await ok(anna, 'conversation.list')
}

async function presence({ anna, berta, ids: [a, b] }) {
  // The broker has heard of this change too when its event is here; later it would close what is watched for a moment.
  await ok(anna, 'user.update', { display_name: 'Anna again', privacy: { presence: 'everyone' } })
  await anna.receive(inbox(a), (event) => event.event === 'profile')
  await berta.subscribe(`chat/user/${a}/presence`)
  await berta.receive(berta.answers, (payload) => payload.user === a && payload.status === 'online')
  await ok(anna, 'presence.set', { status: 'busy', text: 'in a meeting' })
  await berta.receive(`chat/user/${a}/presence`, (payload) => payload.status === 'busy' && payload.text === 'in a meeting')
  await ok(anna, 'presence.set', { status: 'online', text: null })
  await no(anna, 'presence.set', { status: 'offline' }, 'invalid_field')
  const seen = await ok(anna, 'presence.get', { users: [a, b, 999999] })
  assert.deepStrictEqual(
    seen.presence.map((entry) => entry.user),
    [a, b]
  )
  await no(anna, 'presence.get', {}, 'invalid_field')
}

async function moderation({ anna, berta, clara, ids: [a, , c], group, channel }) {
  const flagged = `moderated ${anna.version}`
  await no(clara, 'moderation.list', {}, 'forbidden')
  await no(clara, 'moderation.resolve', { report: 1, resolution: 'dismissed' }, 'forbidden')
  await no(clara, 'moderation.suspend', { user: a }, 'forbidden')
  await no(clara, 'moderation.unsuspend', { user: a }, 'forbidden')
  sql(`UPDATE chat.users SET moderator = true WHERE id = ${a}`)
  const said = []
  for (const body of [flagged, 'once more'])
    said.push(await ok(berta, 'message.send', { conversation: group, body, meta: { a: null } }))
  const news = await ok(anna, 'message.send', { conversation: channel, type: 'opaque', body: 'ciphertext' })
  await ok(anna, 'moderation.report', { conversation: group, seq: said[0].seq, reason: 'rude' })
  await ok(anna, 'moderation.report', { conversation: group, seq: said[1].seq })
  await ok(clara, 'moderation.report', { conversation: channel, seq: news.seq })
  sql(`INSERT INTO chat.reports (conversation_id, seq, rule_id) VALUES (${group}, ${said[1].seq}, 7)`)
  await no(clara, 'moderation.report', { conversation: group, seq: said[0].seq }, 'not_found')
  const { reports } = await ok(anna, 'moderation.list', { limit: 50 })
  const of = (conversation, seq) => reports.find((report) => report.conversation.id === conversation && report.seq === seq)
  assert.strictEqual(of(group, said[0].seq).message.body, flagged)
  assert.strictEqual(of(channel, news.seq).message.body, undefined)
  await ok(anna, 'moderation.resolve', { report: of(group, said[0].seq).id, resolution: 'deleted', note: 'rude' })
  const gone = (message) => message.type === 'delete' && message.ref === said[0].seq
  await berta.receive(`chat/${group}/messages`, gone)
  await ok(anna, 'moderation.resolve', { report: of(group, said[1].seq).id, resolution: 'dismissed' })
  await no(anna, 'moderation.resolve', { report: of(group, said[1].seq).id, resolution: 'dismissed' }, 'conflict')
  await ok(anna, 'moderation.list', { state: 'resolved', limit: 50 })
  await ok(anna, 'moderation.suspend', { user: c, until: Date.now() + 3600000, reason: 'enough' })
  await clara.closed()
  await ok(anna, 'moderation.unsuspend', { user: c })
}

async function endings({ anna, berta, ids: [a, b], group }) {
  await ok(anna, 'conversation.leave', { conversation: group, owner: b })
  await anna.receive(inbox(a), (event) => event.event === 'removed' && event.conversation === group)
  await no(berta, 'auth.logout', { device: 999999 }, 'not_found')
  await ok(anna, 'auth.logout')
  await anna.closed()
}

const cases = {}
for (const version of [4, 5]) {
  cases[`MQTT ${version === 4 ? '3.1.1' : '5'}`] = async () => {
    const world = await accounts(version)
    await users(world)
    await devices(world)
    const whole = await conversations(world)
    await topics(whole)
    await messages(whole)
    await presence(whole)
    await moderation(whole)
    await endings(whole)
  }
}

cases['no method is left out'] = () => {
  const missing = []
  for (const name of contract.methods.keys()) {
    for (const version of [4, 5]) {
      for (const how of ['ok', 'no']) {
        if (!done.has(`${version} ${name} ${how}`)) missing.push(`${version} ${name} ${how}`)
      }
    }
  }
  assert.deepStrictEqual(missing, [])
}

cases['no payload is left out'] = () => {
  const kinds = contract.down.flatMap(({ name, messages }) => messages.map((message) => `${name} ${message}`))
  const events = contract.document.components.schemas.event.oneOf.flatMap((schema) => {
    const { enum: many, const: one } = contract.resolve(schema).properties.event
    return (many || [one]).map((event) => `event ${event}`)
  })
  assert.deepStrictEqual(
    [...kinds, ...events].filter((kind) => !seen.has(kind)),
    []
  )
}

cases['all that came fits the contract'] = () => assert.deepStrictEqual(complaints, [])

run(cases)
