// test_document.js - docs/asyncapi.yaml by itself: the official parser takes it, and it is about the same topics, methods and
// errors as the code.
'use strict'

const assert = require('assert')
const { execFileSync } = require('child_process')
const fs = require('fs')
const path = require('path')
const { Parser } = require('@asyncapi/parser')
const contract = require('./contract')
const reference = require('./reference')
const run = require('./report')

const described = (what) => execFileSync(process.env.CHAT_TEST_DESCRIBE, [what], { encoding: 'utf8' }).trim().split('\n').sort()

// The rows of chat_api.methods, as the migrations insert them: "user.search false 5".
function rows() {
  const directory = path.join(__dirname, '../../schema')
  const found = []
  for (const name of fs.readdirSync(directory).filter((name) => name.endsWith('.sql'))) {
    const text = fs.readFileSync(path.join(directory, name), 'utf8')
    for (const [, columns, values] of text.matchAll(/^INSERT INTO chat_api\.methods \(([^)]*)\) VALUES\n([^;]*);/gm)) {
      for (const [, line] of values.matchAll(/^\t\((.*)\)/gm)) {
        const fields = line.split(', ')
        const row = Object.fromEntries(columns.split(', ').map((column, i) => [column, fields[i].replace(/'/g, '')]))
        found.push(`${row.name} ${row.guests || 'false'} ${row.cost || 1}`)
      }
    }
  }
  return found.sort()
}

run({
  'the official parser takes it': async () => {
    const { document, diagnostics } = await new Parser().parse(fs.readFileSync(contract.file, 'utf8'))
    const said = diagnostics.filter(({ code }) => code !== 'asyncapi-latest-version') // 3.0 is what most tools read
    assert.deepStrictEqual(
      said.map(({ message, path, range }) => `${range.start.line + 1}: ${path.join('.')}: ${message}`),
      []
    )
    assert.ok(document)
  },

  'topics are those of the code': () => {
    const addresses = Object.values(contract.document.channels).map(({ address }) =>
      address.startsWith('chat/request/') ? 'chat/request/{method}' : address.replace('{client_id}', '{client id}')
    )
    assert.deepStrictEqual([...new Set(addresses)].sort(), described('topics'))
  },

  'errors are those of the code': () => {
    const codes = contract.document.components.schemas.error_code.enum
    assert.deepStrictEqual([...codes].sort(), described('errors'))
    for (const { errors } of contract.methods.values()) {
      for (const error of errors) assert.ok(codes.includes(error), error)
    }
  },

  'methods, their costs and who may ask are those of chat_api.methods': () => {
    assert.deepStrictEqual(
      [...contract.methods.values()].map(({ name, guests, cost }) => `${name} ${guests} ${cost}`).sort(),
      rows()
    )
  },

  'every schema can be compiled and is used': () => {
    const text = JSON.stringify(contract.document)
    for (const name of Object.keys(contract.document.components.schemas)) {
      contract.complaint(`#/components/schemas/${name}`, {})
      assert.ok(text.includes(`"#/components/schemas/${name}"`), `nothing refers to ${name}`)
    }
  },

  'docs/methods.md is made from it': () => {
    assert.strictEqual(
      fs.readFileSync(reference.file, 'utf8'),
      reference(),
      'docs/methods.md is not up to date: NODE_PATH=build/node/node_modules node tests/contract/reference.js'
    )
  }
})
