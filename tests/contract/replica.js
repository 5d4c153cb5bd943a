// replica.js - a client's copy of a conversation's log, kept as docs/reference.md and docs/methods.md tell clients to: from what is
// delivered, from pages of history and sync, or from any mixture of them. Two copies that hold the same numbers must be equal.
'use strict'

const ACTS = new Set(['reaction', 'edit', 'delete'])
const GONE = new Set(['deleted', 'expired'])

class Replica {
  constructor(user, conversation) {
    this.user = user
    this.conversation = conversation
    this.held = 0 // every number up to here has come
    this.entries = new Map()
  }

  // `asOf`: up to which number the entry's state was made; a delivered entry knows of nothing after itself.
  put(entry, asOf) {
    if (ACTS.has(entry.type)) {
      this.entries.set(entry.seq, { type: entry.type, ref: entry.ref })
      this.act(entry)
      return
    }
    const known = { ...entry, asOf, reactions: new Map(), mine: new Set() }
    delete known.conversation
    for (const { body, count, mine } of entry.reactions || []) {
      known.reactions.set(body, count)
      if (mine) known.mine.add(body)
    }
    this.entries.set(entry.seq, known)
  }

  act(entry) {
    const target = this.entries.get(entry.ref)
    if (!target || GONE.has(target.type) || entry.seq <= target.asOf) return
    if (entry.type === 'delete') {
      this.entries.set(entry.ref, { seq: entry.ref, type: 'deleted' })
    } else if (entry.type === 'edit' && entry.body !== undefined) {
      target.body = entry.body
      target.edited_at = entry.sent_at
    } else if (entry.type === 'reaction' && entry.body !== undefined) {
      const count = (target.reactions.get(entry.body) || 0) + (entry.remove ? -1 : 1)
      if (count) target.reactions.set(entry.body, count)
      else target.reactions.delete(entry.body)
      if (entry.from === this.user && entry.remove) target.mine.delete(entry.body)
      else if (entry.from === this.user) target.mine.add(entry.body)
    }
  }

  // Entries of an answer, oldest first.
  page(entries, asOf) {
    for (const entry of entries) this.put(entry, asOf)
    if (entries.length) this.held = Math.max(this.held, entries[entries.length - 1].seq)
  }

  // What is shown at a time: one line for each number.
  lines(now) {
    return [...this.entries.keys()]
      .sort((a, b) => a - b)
      .map((seq) => {
        const entry = this.entries.get(seq)
        if (ACTS.has(entry.type)) return JSON.stringify([seq, entry.type, entry.ref])
        if (GONE.has(entry.type) || entry.expires_at <= now) return JSON.stringify([seq, GONE.has(entry.type) ? entry.type : 'expired'])
        const { asOf, reactions, mine, ...rest } = entry
        const members = Object.entries(rest).sort(([a], [b]) => (a < b ? -1 : 1))
        return JSON.stringify([seq, members, [...reactions].sort(), [...mine].sort()])
      })
  }
}

// A replica on a connection that follows its conversation: what is delivered is put in its place, and what is missing is fetched.
class Follower {
  // paused: what is delivered waits for resume().
  constructor(client, user, conversation, paused) {
    this.paused = paused
    this.client = client
    this.replica = new Replica(user, conversation)
    this.topic = `chat/${conversation}/messages`
    this.queue = []
    this.busy = false
    this.waiting = []
    this.fetched = 0
    const take = client.take.bind(client)
    client.take = (...message) => {
      take(...message)
      this.collect()
    }
  }

  collect() {
    const mine = this.client.received.filter(({ topic }) => topic === this.topic)
    if (!mine.length) return
    this.client.received = this.client.received.filter(({ topic }) => topic !== this.topic)
    this.queue.push(...mine.map(({ payload }) => payload))
    if (!this.paused) this.work()
  }

  resume() {
    this.paused = false
    this.work()
  }

  work() {
    if (!this.busy) this.drain().catch((error) => this.client.end(error))
  }

  async drain() {
    this.busy = true
    while (this.queue.length) {
      const entry = this.queue.shift()
      const last = entry.behind ? entry.last_seq : entry.seq - 1
      while (this.replica.held < last) await this.fetch()
      if (entry.behind || entry.seq <= this.replica.held) continue
      this.replica.put(entry, entry.seq)
      this.replica.held = entry.seq
    }
    this.busy = false
    for (const wait of this.waiting) if (this.replica.held >= wait.seq) wait.resolve()
    this.waiting = this.waiting.filter(({ seq }) => this.replica.held < seq)
  }

  async fetch(limit = 200) {
    const answer = await this.client.ask('message.history', {
      conversation: this.replica.conversation,
      after: this.replica.held,
      limit
    })
    this.replica.page(answer.result.messages, answer.result.last_seq)
    this.fetched += answer.result.messages.length
  }

  until(seq) {
    if (this.replica.held >= seq) return Promise.resolve()
    return new Promise((resolve) => this.waiting.push({ seq, resolve }))
  }
}

module.exports = { Follower, Replica }
