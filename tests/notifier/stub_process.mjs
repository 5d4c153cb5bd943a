// stub_process.mjs STATE PORT - a stub in a process of its own, so that it can be killed like any other and has no other work than to look at its socket.
//
// STATE is a JSON file: {kind, tls, key, browsers, log}. Each push that it accepts is a line in the file `log` before its answer is sent: {device, conversation,
// seq, id, at, lag}. `at` is when the request was read; it was written `lag` milliseconds earlier at most.
import fs from 'node:fs';
import { ApnsStub } from './apns_stub.mjs';
import { FcmStub } from './fcm_stub.mjs';
import { Browser, WebPushStub } from './webpush_stub.mjs';

const state = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const log = fs.openSync(state.log, 'a');
// What was read now has come since the last tick, or the one before.
let ticks = [Date.now(), Date.now()];
setInterval(() => { ticks = [ticks[1], Date.now()]; }, 5);
const write = (line) => fs.writeSync(log, `${JSON.stringify(line)}\n`);

const read = {
  fcm: ({ name, message: { data, android } }) => ({ device: Number(name), conversation: Number(data.conversation), seq: Number(data.seq), id: android.notification.tag }),
  apns: ({ name, json, id }) => ({ device: parseInt(name, 16), conversation: json.conversation, seq: json.seq, id }),
  webpush: ({ name, json, topic }) => ({ device: Number(name), conversation: json.conversation, seq: json.seq, id: topic }),
};
function answer(push) {
  write({ ...read[state.kind](push), at: push.at, lag: Date.now() - ticks[0] });
  return null;
}
const make = {
  fcm: () => new FcmStub(state.tls, { key: state.key, answer }),
  apns: () => new ApnsStub(state.tls, { key: state.key, answer }),
  webpush: () => new WebPushStub(state.tls, { answer }),
};
const stub = make[state.kind]();
for (const [path, keys] of Object.entries(state.browsers ?? {})) stub.browsers.set(path, Browser.from(keys));
stub.wrong = { push: (what) => write({ wrong: what }) };
if (state.kind === 'fcm') {
  // Access tokens outlive whoever gave them out.
  const file = `${state.log}.tokens`, set = stub.tokens.set.bind(stub.tokens);
  if (fs.existsSync(file)) for (const line of fs.readFileSync(file, 'utf8').split('\n').filter(Boolean)) set(...JSON.parse(line));
  stub.tokens.set = (...entry) => { fs.appendFileSync(file, `${JSON.stringify(entry)}\n`); return set(...entry); };
}
await stub.listen(Number(process.argv[3]));
process.stdout.write(`${stub.port}\n`);
