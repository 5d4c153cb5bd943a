// contract.js - docs/asyncapi.yaml as a judge: what may be asked for, and whether what came is what it says.
'use strict'

const fs = require('fs')
const path = require('path')
const Ajv = require('ajv')
const yaml = require('js-yaml')

const file = path.join(__dirname, '../../docs/asyncapi.yaml')
const document = yaml.load(fs.readFileSync(file, 'utf8'))

const ajv = new Ajv({ strict: false, allErrors: false, unicodeRegExp: true })
ajv.addSchema(document, 'contract')

// A part of the document by its reference, "#/components/…".
function resolve(node) {
  while (node && node.$ref) {
    node = node.$ref
      .slice(2)
      .split('/')
      .reduce((part, name) => part[name], document)
  }
  return node
}

const compiled = new Map()
function validator(reference) {
  if (!compiled.has(reference)) compiled.set(reference, ajv.compile({ $ref: 'contract' + reference }))
  return compiled.get(reference)
}

// What is wrong with a value; null: nothing.
function complaint(reference, value) {
  const validate = validator(reference)
  return validate(value) ? null : `${reference}: ${ajv.errorsText(validate.errors)}`
}

const commonErrors = document.components['x-common-errors']

// By name: schema (a reference), errors (all codes that it may answer with), cost, guests, summary, description, tag.
const methods = new Map()
for (const [name, operation] of Object.entries(document.operations)) {
  if (!resolve(operation.channel).address.startsWith('chat/request/')) continue
  methods.set(name, {
    name,
    schema: `#/components/schemas/${name}`,
    result: `#/components/schemas/${name}.result`,
    errors: new Set([...commonErrors, ...operation['x-errors']]),
    ownErrors: operation['x-errors'],
    cost: operation['x-cost'],
    guests: operation['x-guests'],
    summary: operation.summary,
    description: operation.description,
    tag: operation.tags[0].name
  })
}

function topicPattern(address) {
  return new RegExp('^' + address.replace(/[.]/g, '\\.').replace(/\{[^}]*\}/g, '[^/]+') + '$')
}

// The channels that the server publishes on.
const down = Object.entries(document.operations)
  .filter(([, operation]) => operation.action === 'send')
  .map(([name]) => {
    const channel = document.channels[name]
    return { name, pattern: topicPattern(channel.address), messages: Object.keys(channel.messages) }
  })

const messageReference = (channel, message) => document.channels[channel].messages[message].$ref

// Which of the channel's messages this is: its name, or a complaint.
function recognise(channel, payload, candidates) {
  const complaints = []
  for (const name of candidates) {
    const said = complaint(messageReference(channel.name, name) + '/payload', payload)
    if (!said) return { name }
    complaints.push(said)
  }
  return { complaint: complaints.join('\n  or ') }
}

// Holds a publish by the server against the contract. `method`: the request that it answers, if it is an answer. Returns
// {kind: "channel message"} or {complaint}.
function judge(topic, bytes, properties, version, method) {
  const channel = down.find(({ pattern }) => pattern.test(topic))
  if (!channel) return { complaint: `nothing is published on ${topic}` }
  let payload
  try {
    payload = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    return { complaint: `not JSON: ${error.message}` }
  }
  let candidates = channel.messages.filter((name) => !methods.has(name))
  if (method && payload.result) candidates = [method.name]
  const found = recognise(channel, payload, candidates)
  if (found.complaint) return found
  if (method && found.name === 'error' && !method.errors.has(payload.error.code)) {
    return { complaint: `${method.name} is not said to answer ${payload.error.code}` }
  }
  const said = judgeHeaders(messageReference(channel.name, found.name), properties, version)
  return said ? { complaint: said } : { kind: `${channel.name} ${found.name}`, payload }
}

function judgeHeaders(reference, properties, version) {
  if (version < 5) return null
  const headers = { contentType: properties && properties.contentType, ...(properties && properties.userProperties) }
  if (headers.contentType !== 'application/json') return `content type ${headers.contentType}`
  return complaint(reference + '/headers', headers)
}

module.exports = { ajv, commonErrors, complaint, document, down, file, judge, methods, resolve }
