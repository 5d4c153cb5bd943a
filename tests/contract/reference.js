// reference.js - makes docs/methods.md from docs/asyncapi.yaml.
//
//   NODE_PATH=build/node/node_modules node tests/contract/reference.js     writes it
//   require('./reference')()                                                returns its text
'use strict'

const fs = require('fs')
const path = require('path')
const { document, methods, resolve } = require('./contract')

const file = path.join(__dirname, '../../docs/methods.md')
const SECTIONS = {
  auth: 'Accounts',
  user: 'Users',
  device: 'Devices',
  conversation: 'Conversations',
  message: 'Messages',
  moderation: 'Moderation',
  presence: 'Presence'
}

const code = (text) => '`' + text + '`'
const isSafeInteger = (number) => Math.abs(number) === Number.MAX_SAFE_INTEGER

// The name of a schema that is used by many, for "list of user".
const NAMED = new Set([
  'user',
  'own_user',
  'blocked_user',
  'member',
  'device',
  'conversation',
  'synced_conversation',
  'entry',
  'hit',
  'report',
  'presence',
  'attachment',
  'new_device',
  'push_token',
  'push_subscription',
  'uuid',
  'time'
])
function nameOf(schema) {
  const name = schema.$ref && schema.$ref.split('/').pop()
  return NAMED.has(name) ? name.replaceAll('_', ' ') : name === 'id' ? 'number' : null
}

function range(schema) {
  if (schema.maximum === undefined || isSafeInteger(schema.maximum)) return `from ${schema.minimum}`
  return `${schema.minimum} to ${schema.maximum}`
}

function typeText(schema) {
  const name = nameOf(schema)
  if (name) return name
  const whole = resolve(schema)
  if (whole.enum) return whole.enum.map((value) => code(JSON.stringify(value))).join(', ')
  if (whole.const !== undefined) return code(JSON.stringify(whole.const))
  if (whole.anyOf && !whole.type) return whole.anyOf.map(typeText).join(' or ')
  const types = [].concat(whole.type || 'any')
  return types
    .map((type) => {
      if (type === 'integer') return `integer ${range(whole)}`
      if (type === 'array') return `list of ${typeText(whole.items)}` + (whole.maxItems ? `, at most ${whole.maxItems}` : '')
      if (type === 'string' && (whole.description || '').endsWith('bytes')) return 'text'
      if (type === 'string' && whole.maxLength)
        return `text, ${whole.minLength ? `${whole.minLength} to ` : 'at most '}${whole.maxLength} characters`
      return { string: 'text', boolean: '`true`, `false`', null: '`null`' }[type] || type
    })
    .join(' or ')
}

function parameters(method) {
  const schema = resolve({ $ref: method.schema })
  return Object.entries(schema.properties)
    .filter(([name]) => name !== 'request_id')
    .map(([name, property]) => {
      const whole = resolve(property)
      return {
        name,
        required: (schema.required || []).includes(name),
        property,
        default: whole.default,
        description: whole.description
      }
    })
}

function resultNames(method) {
  const schema = resolve({ $ref: method.result })
  const variants = schema.oneOf ? schema.oneOf.map(resolve) : [schema]
  const names = variants.map((variant) =>
    Object.keys(variant.properties || {}).map((name) => ((variant.required || []).includes(name) ? name : `${name}?`))
  )
  return names.map((list) => list.join(', ') || '{}').join('; or ')
}

function brief(parameter) {
  if (parameter.required) return parameter.name
  return `${parameter.name}?` + (parameter.default === undefined ? '' : ` = ${parameter.default}`)
}

function row(method) {
  const asked = parameters(method)
  const names = method.name === 'message.send' ? 'conversation and an envelope' : asked.map(brief).join(', ')
  return `| ${code(method.name)} | ${names} | ${resultNames(method)} | ${method.cost} |`
}

function parameterLine(parameter) {
  const notes = [
    parameter.required ? '' : 'optional',
    parameter.default === undefined ? '' : `default ${parameter.default}`,
    parameter.description || ''
  ]
  return `| ${code(parameter.name)} | ${typeText(parameter.property)} | ${notes.filter(Boolean).join('; ')} |`
}

function details(method) {
  const lines = [`### ${method.name}`, '', method.summary, '']
  if (method.description) lines.push(method.description.trim(), '')
  const asked = parameters(method)
  if (asked.length) lines.push('| parameter | | |', '| --- | --- | --- |', ...asked.map(parameterLine), '')
  lines.push(
    `Result: ${resultNames(method)}.` +
      (method.ownErrors.length ? ` Errors of its own: ${method.ownErrors.map(code).join(', ')}.` : ''),
    ''
  )
  return lines
}

module.exports = function reference() {
  const lines = [
    '<!-- Made by tests/contract/reference.js from asyncapi.yaml: change that, and run it. -->',
    '',
    '# Methods',
    '',
    document.info.description.trim(),
    '',
    '## Methods',
    '',
    '| method | parameters | result | cost |',
    '| --- | --- | --- | --- |',
    ...[...methods.values()].map(row),
    ''
  ]
  for (const { name, description } of document.info.tags) {
    lines.push(`## ${SECTIONS[name]}`, '', description.trim(), '')
    for (const method of methods.values()) {
      if (method.tag === name) lines.push(...details(method))
    }
  }
  return lines.join('\n').trimEnd() + '\n'
}
module.exports.file = file

if (require.main === module) fs.writeFileSync(file, module.exports())
