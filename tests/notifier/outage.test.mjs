// A push service is away: the others' pushes go out as ever, its own breaker is open, and when it is back everything that waited goes out. For each kind of
// being away, and each provider in its turn. bench.mjs measures what the others notice of it.
import assert from 'node:assert';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { ApnsStub } from './apns_stub.mjs';
import { FcmStub } from './fcm_stub.mjs';
import { DEADLINE_MS, System, until } from './system.mjs';
import { WebPushStub } from './webpush_stub.mjs';

const COUNT = 40;
const providers = ['fcm', 'apns', 'webpush'];
let system, notifier, conversation = 2000;
const stubs = {}, away = {};

const kinds = {
  // Connections are made, requests taken, and never answered.
  silent: { begin: (name) => { away[name] = { never: true }; }, end: (name) => { away[name] = null; } },
  refused: { begin: (name) => stubs[name].down(), end: (name) => stubs[name].listen(stubs[name].port) },
  errors: { begin: (name) => { away[name] = { status: 503, headers: {}, body: '<html>busy</html>' }; }, end: (name) => { away[name] = null; } },
};
const plan = [['fcm', 'silent'], ['apns', 'refused'], ['webpush', 'errors']];

before(async () => {
  system = await System.start();
  let text = 'grace = 0\npoll = 20ms\nlisten = 127.0.0.1:0\n';
  for (const [victim, kind] of plan) {
    for (const provider of providers) {
      const name = `${victim}-${provider}`, options = { answer: () => away[name] ?? null };
      const key = (file) => ({ key: fs.readFileSync(system.file(file), 'utf8'), ...options });
      stubs[name] = provider === 'fcm' ? new FcmStub(system.tls(), key('google.pub')) : provider === 'apns' ? new ApnsStub(system.tls(), key('apns.pub')) : new WebPushStub(system.tls(), options);
      await stubs[name].listen();
      text += system.section(name, provider, stubs[name], kind === 'silent' && provider === victim ? { timeout: '5s' } : {});
    }
  }
  notifier = system.notifier(text);
});
after(async () => {
  await system.end(notifier);
  for (const stub of Object.values(stubs)) {
    assert.deepEqual(stub.wrong, []);
    await stub.close();
  }
  await system.stop();
});

const targets = {
  fcm: (name, i) => `${name}-${i}`,
  apns: (name, i) => Buffer.from(`${name}-${i}`).toString('hex'),
  webpush: (name, i) => stubs[name].subscribe(`${name}-${i}`),
};
const accepted = (group) => until(`${group.name}: all to be accepted`, async () => (await system.count(group.conversation, 'shown')) === COUNT, 2 * DEADLINE_MS);
const paused = async (name) => (await system.metric(notifier, 'breaker_state', name)) === 1 || (await system.metric(notifier, 'paused_services', name)) === 1;

describe('away', { concurrency: 3 }, () => {
  for (const [victim, kind] of plan) {
    test(`${victim}: ${kind}`, async () => {
      const groups = [];
      for (const provider of providers) {
        const name = `${victim}-${provider}`;
        groups.push({ name, ...await system.crowd(conversation++, COUNT, provider, name, (i) => targets[provider](name, i)) });
      }
      const send = () => Promise.all(groups.map((group) => system.send(group.conversation, group.sender)));
      const own = groups.find((group) => group.name === `${victim}-${victim}`), others = groups.filter((group) => group !== own);
      await send();
      await Promise.all(groups.map(accepted));
      await kinds[kind].begin(own.name);
      await send();
      await until('the breaker to open', () => paused(own.name));
      // Once more for the others, after it has opened.
      await Promise.all(others.map(accepted));
      await send();
      await Promise.all(others.map(accepted));
      assert.equal(await system.count(own.conversation, 'due'), COUNT, 'nothing of it is lost, and nothing went out');
      await kinds[kind].end(own.name);
      await accepted(own);
      await until('the breaker to close', async () => !(await paused(own.name)));
      for (const group of others) assert.equal(await system.metric(notifier, 'breaker_state', group.name), 0);
    });
  }
});
