// report.js - runs the cases of a test one after the other and prints their number as cmocka does, for tests/run.sh to count.
'use strict'

module.exports = async function run(cases) {
  process.exitCode = 1 // node ends by itself where nothing is left to wait for, and that is no success
  let passed = 0
  let failed = 0
  for (const [name, test] of Object.entries(cases)) {
    try {
      await test()
      console.log(`[       OK ] ${name}`)
      passed++
    } catch (error) {
      console.log(`[  FAILED  ] ${name}\n${error.message}\n${error.stack.replace(/^[^]*?\n {4}at /, '    at ')}`)
      failed++
    }
  }
  console.log(`[  PASSED  ] ${passed} test(s).`)
  if (failed) console.log(`[  FAILED  ] ${failed} test(s).`)
  process.exit(failed ? 1 : 0)
}
