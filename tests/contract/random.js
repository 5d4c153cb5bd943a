// random.js - requests that no client would send, made by who knows the schemas: good ones, with one or several things made bad.
//
// A request is {method, bytes, expect}. What is expected: 'json' (no strict JSON: invalid_json), 'long' (too_long), 'schema' (JSON
// that the schema does not allow: some error), 'unknown' (no such method: not_found), 'topic' (no name of a method: refused by its
// topic), 'any' (whatever is documented for the method).
'use strict'

const contract = require('./contract')

// mulberry32: small, and the same everywhere.
function generator(seed) {
  const next = () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  const integer = (low, high) => low + Math.floor(next() * (high - low + 1))
  return { next, integer, chance: (p) => next() < p, pick: (list) => list[integer(0, list.length - 1)] }
}

const SQL = [
  "'; DROP TABLE chat.users; --",
  "' OR '1'='1",
  '"; DROP SCHEMA chat CASCADE; --',
  "\\'; SELECT pg_sleep(60); --",
  '$$; TRUNCATE chat.messages; $$',
  "'||(SELECT verifier FROM chat.credentials LIMIT 1)||'",
  '%s%s%n',
  '{}',
  '%I',
  ':*',
  'a & ! | ( b <-> c:*',
  "E'\\x00'",
  'NULL',
  '1; COMMIT; DROP TABLE chat.devices',
  '#1',
  "'#1' | '#2'",
  '\\',
  "''",
  '%_',
  "chat_api.call('user.get', 1, 0, '', '{}')"
]
const TEXTS = [
  'hello',
  'ünï cödé',
  '漢字かな交じり文',
  'สวัสดี',
  'e\u0301',
  '\u202Eevil',
  '\u200B',
  'a\u0007b',
  'tab\there',
  'line\nbreak',
  ' space around ',
  '👍',
  '🏳️‍🌈',
  '\uFEFF',
  '\uFFFF',
  '\u{10FFFF}',
  '',
  ' ',
  '0',
  '-1',
  'true',
  'null',
  '<b>x</b>',
  '\uE000x\uE001',
  'İıſK',
  'ﬁ ﬂ ㍿',
  'a'.repeat(49),
  'a'.repeat(51),
  'x'.repeat(201),
  '漢'.repeat(2001)
]
const NUMBERS = [
  0,
  -1,
  1,
  1.5,
  1e15,
  2 ** 31,
  2 ** 32,
  2 ** 43,
  2 ** 53 - 1,
  2 ** 53,
  -(2 ** 53),
  9.3e18,
  1e19,
  1e308,
  -1e308,
  5e-324,
  0.1,
  253402300799999,
  253402300800000,
  200,
  201
]

// Text that goes out as it is. `bad`: it is no strict JSON.
class Raw {
  constructor(bytes, bad) {
    this.bytes = Buffer.from(bytes)
    this.bad = bad
  }
}
const RAWS = [
  new Raw('"\\u0000"', true),
  new Raw('"a\\u0000b"', true),
  new Raw('"\\ud800"', true),
  new Raw('"\\udc00x"', true),
  new Raw('"\\ud800\\u0041"', true),
  new Raw([0x22, 0x00, 0x22], true),
  new Raw([0x22, 0xff, 0x22], true),
  new Raw([0x22, 0xc0, 0x80, 0x22], true),
  new Raw([0x22, 0xed, 0xa0, 0x80, 0x22], true),
  new Raw([0x22, 0xf4, 0x90, 0x80, 0x80, 0x22], true),
  new Raw('"\\x41"', true),
  new Raw('"\n"', true),
  new Raw('01', true),
  new Raw('+1', true),
  new Raw('.5', true),
  new Raw('1.', true),
  new Raw('NaN', true),
  new Raw('Infinity', true),
  new Raw('0x10', true),
  new Raw("'a'", true),
  new Raw('undefined', true),
  new Raw('tru', true),
  new Raw('{', true),
  new Raw(']', true),
  new Raw('[1,]', true),
  new Raw('{"a":1,}', true),
  new Raw('1 2', true),
  new Raw('', true),
  new Raw('{"a":1,"a":2}', true),
  new Raw('{"a":1,"\\u0061":2}', true),
  new Raw('/**/1', true),
  new Raw('1e999', false),
  new Raw('-1e999', false),
  new Raw('1e-999', false),
  new Raw('9'.repeat(60), false),
  new Raw('9'.repeat(400), false),
  new Raw('1.0', false),
  new Raw('1e0', false),
  new Raw('-0', false),
  new Raw('0.' + '0'.repeat(50) + '1', false),
  new Raw('9007199254740993', false),
  new Raw('"\\ud83d\\udc4d"', false),
  new Raw('"\\/\\b\\f\\n\\r\\t"', false)
]

// What the server calls no good JSON, though it is: docs/reference.md, "Limits".
const DEPTH_MAX = 16
const VALUES_MAX = 16384
const SMALLEST = 1e-308 // exponents below that are refused (common/json.c)
function isWithinLimits(value) {
  let left = VALUES_MAX - 1 // the whole is one
  const within = (item, depth) => {
    if (typeof item === 'number')
      return Math.abs(item) <= Number.MAX_SAFE_INTEGER && (item === 0 || Math.abs(item) >= SMALLEST)
    if (item === null || typeof item !== 'object') return true
    const items = Object.values(item)
    left -= items.length
    return depth < DEPTH_MAX && left >= 0 && items.every((inner) => within(inner, depth + 1))
  }
  return within(value, 0)
}

// Longer packets end the connection (max_packet_size in mosquitto.conf). What is cut is too long whatever it says.
const PAYLOAD_MAX = 1311000

class RandomRequests {
  // pools: what exists, by the name of the property that takes it: {conversation: [...], user: [...]}.
  constructor(seed, pools) {
    this.random = generator(seed)
    this.pools = pools
    this.names = [...contract.methods.keys()]
  }

  // ---- good values

  text(schema) {
    const { random } = this
    let value = random.chance(0.3)
      ? random.pick(SQL)
      : random.chance(0.5)
        ? random.pick(TEXTS)
        : 'abcdefgh '.repeat(3).slice(0, random.integer(1, 24))
    const { minLength = 0, maxLength = Infinity } = schema
    if ([...value].length < minLength) value += 'x'.repeat(minLength)
    return random.chance(0.9) && [...value].length > maxLength ? [...value].slice(0, maxLength).join('') : value
  }

  number(schema) {
    const { random } = this
    const { minimum: low = -(2 ** 53), maximum: high = 2 ** 53 } = schema
    if (random.chance(0.2)) return random.pick([low, high, random.integer(low, high)])
    return random.integer(Math.max(low, 0), Math.min(high, Math.max(low, 0) + 60))
  }

  good(schema, name) {
    const { random } = this
    const pool = this.pools[name]
    schema = contract.resolve(schema)
    if (pool && schema.type !== 'object' && schema.type !== 'array' && random.chance(0.85)) return random.pick(pool)
    if (schema.enum) return random.pick(schema.enum)
    if (schema.const !== undefined) return schema.const
    const choices = schema.type ? [].concat(schema.type) : null
    if (!choices) return this.good(random.pick(schema.anyOf || schema.oneOf || [{ type: 'string' }]), name)
    switch (random.pick(choices)) {
      case 'object':
        return this.goodObject(schema)
      case 'array':
        return Array.from({ length: random.chance(0.1) ? random.integer(0, 120) : random.integer(0, 4) }, () =>
          this.good(schema.items, name)
        )
      case 'integer':
        return this.number(schema)
      case 'boolean':
        return random.chance(0.5)
      case 'null':
        return null
      default:
        return this.text(schema)
    }
  }

  goodObject(schema) {
    const { random } = this
    const object = {}
    const one = schema.oneOf && random.pick(schema.oneOf).required // message.status: seq or id
    const either = schema.oneOf ? schema.oneOf.flatMap(({ required = [] }) => required) : []
    for (const [name, property] of Object.entries(schema.properties || {})) {
      const required = (schema.required || []).includes(name)
      if (property === false || !(either.includes(name) ? one.includes(name) : required || random.chance(0.35))) continue
      object[name] = this.good(property, name)
    }
    if (schema.propertyNames) {
      // cursors
      for (let i = random.integer(0, 5); i > 0; i--) object[random.pick(this.pools.conversation)] = this.number({ minimum: 0 })
    }
    return object
  }

  // ---- bad ones

  nested(depth) {
    let value = this.random.pick([1, 'x', null])
    for (let i = 0; i < depth; i++) value = this.random.chance(0.5) ? [value] : { a: value }
    return value
  }

  nasty() {
    const { random } = this
    switch (random.integer(0, 9)) {
      case 0:
        return random.pick(NUMBERS)
      case 1:
        return random.pick(TEXTS)
      case 2:
        return random.pick(SQL)
      case 3:
        return random.pick([null, true, false, [], {}, [null], [[]], { a: 1 }])
      case 4:
        return this.nested(random.pick([1, 5, 13, 14, 15, 16, 17, 60, 500]))
      case 5:
        return (random.chance(0.5) ? 'x' : '漢\'"\\').repeat(random.pick([300, 5000, 40000]))
      case 6:
        return Array.from({ length: random.pick([1, 51, 101, 1000]) }, (_, i) => i + 1)
      case 7:
        return Object.fromEntries(Array.from({ length: random.pick([3, 30, 6000]) }, (_, i) => [i + 1, i]))
      default:
        return random.pick(RAWS)
    }
  }

  // Changes something at a random place of the object.
  spoil(object) {
    const { random } = this
    const names = Object.keys(object)
    const name = names.length ? random.pick(names) : null
    const inner = name && object[name]
    if (inner && typeof inner === 'object' && !(inner instanceof Raw) && random.chance(0.5)) {
      this.spoil(inner)
    } else if (name && random.chance(0.25) && !Array.isArray(object)) {
      delete object[name]
    } else if (name && random.chance(0.7)) {
      object[name] = this.nasty()
    } else if (Array.isArray(object)) {
      object.push(this.nasty())
    } else {
      object[
        random.pick([
          '',
          'x',
          'request_id',
          'user',
          'conversation',
          'limit',
          'type',
          '__proto__x',
          'constructor',
          random.pick(SQL),
          'é',
          'Limit'
        ])
      ] = this.nasty()
    }
  }

  // ---- bytes

  // JSON text; notes in this.bad that it is none any more. At most one name comes twice: nested they would double each other.
  encode(value, duplicates) {
    const { random } = this
    if (value instanceof Raw) {
      this.bad = this.bad || value.bad
      this.raw = true
      return value.bytes
    }
    if (value === null || typeof value !== 'object') return Buffer.from(JSON.stringify(value))
    const open = Array.isArray(value) ? '[]' : '{}'
    const members = Array.isArray(value)
      ? value.map((item) => this.encode(item, duplicates))
      : Object.entries(value).map(([name, item]) =>
          Buffer.concat([Buffer.from(JSON.stringify(name) + ':'), this.encode(item, duplicates)])
        )
    if (duplicates && !this.bad && open === '{}' && members.length > 0 && random.chance(0.5)) {
      members.push(random.pick(members))
      this.bad = true
    }
    const parts = [Buffer.from(open[0])]
    members.forEach((member, i) => parts.push(Buffer.from(i > 0 ? ',' : ''), member))
    return Buffer.concat([...parts, Buffer.from(open[1])])
  }

  // Makes bytes of JSON into bytes of none.
  garble(bytes) {
    const { random } = this
    this.bad = true
    switch (random.integer(0, 6)) {
      case 0:
        return bytes.subarray(0, random.integer(1, bytes.length - 1))
      case 1:
        return Buffer.concat([bytes, Buffer.from(random.pick(['x', '}', ',', '\0', '{}', '\u00a0']))])
      case 2:
        return Buffer.concat([Buffer.from(random.pick(['\uFEFF', '\0', 'x', ','])), bytes])
      case 3:
        return Buffer.from(random.pick(['[]', '"x"', '7', 'null', 'hello', '[{}]', ...SQL.filter((text) => text !== '{}')]))
      case 4:
        return Buffer.from(Array.from({ length: random.integer(1, 200) }, () => random.integer(128, 255)))
      case 5:
        return Buffer.from('['.repeat(random.pick([17, 1000, 100000])))
      default: {
        const at = random.integer(0, bytes.length - 1)
        return Buffer.concat([bytes.subarray(0, at), Buffer.from([0]), bytes.subarray(at)])
      }
    }
  }

  method() {
    const { random } = this
    if (random.chance(0.02))
      return {
        name: random.pick([
          'user.nope',
          'user',
          'a',
          'x'.repeat(64),
          'chat_api.call',
          'pg_catalog.version',
          'user.get.user',
          '_._'
        ]),
        unknown: 'unknown'
      }
    if (random.chance(0.01))
      return {
        name: random.pick(['User.get', 'user get', 'user..get', '.', '', 'x'.repeat(65), "user.get';--", 'user/get', 'é']),
        unknown: 'topic'
      }
    let name = random.pick(this.names)
    // Their passwords cost a quarter of a second each.
    if (name.startsWith('auth.') && random.chance(0.85)) name = random.pick(this.names)
    return { name }
  }

  next() {
    const { random } = this
    const { name, unknown } = this.method()
    const parameters = unknown ? {} : this.good({ $ref: contract.methods.get(name).schema })
    delete parameters.request_id
    if (random.chance(0.3)) parameters.request_id = random.pick([1, 'r', '', "'", 2 ** 53 - 1, '漢'.repeat(40), '"\\\u0001'])
    for (let i = random.pick([0, 0, 0, 0, 1, 1, 1, 2, 4]); i > 0; i--) this.spoil(parameters)
    this.bad = this.raw = false
    let bytes = this.encode(parameters, random.chance(0.05))
    if (random.chance(0.08)) bytes = this.garble(bytes)
    if (random.chance(0.02)) bytes = Buffer.concat([bytes, Buffer.alloc(random.pick([262144, 300000, 1310721]), ' ')])
    bytes = bytes.subarray(0, PAYLOAD_MAX)
    return { method: name, bytes, expect: this.expect(name, unknown, bytes) }
  }

  expect(name, unknown, bytes) {
    if (unknown === 'topic') return 'topic'
    if (bytes.length > (name === 'message.send' ? 1310720 : 262144)) return 'long'
    if (this.bad) return 'json'
    if (this.raw) return 'any' // numbers of which JavaScript and the server may think differently
    const value = JSON.parse(bytes)
    if (!isWithinLimits(value)) return 'json'
    if (unknown)
      return contract.complaint('#/components/schemas/request_id', value.request_id === undefined ? 0 : value.request_id)
        ? 'schema'
        : 'unknown'
    return contract.complaint(contract.methods.get(name).schema, value) ? 'schema' : 'any'
  }
}

module.exports = RandomRequests
module.exports.generator = generator
