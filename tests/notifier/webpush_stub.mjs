// webpush_stub.mjs - a push service for Web Push (RFC 8030) and the browser behind it: checks what the RFCs demand, decrypts (RFC 8291) and keeps it.
import crypto from 'node:crypto';
import { Stub } from './stub.mjs';

const b64 = (bytes) => Buffer.from(bytes).toString('base64url');
const hmac = (key, data) => crypto.createHmac('sha256', key).update(data).digest();
const hkdf = (salt, ikm, info, length) => hmac(hmac(salt, ikm), Buffer.concat([info, Buffer.from([1])])).subarray(0, length);

export class Browser {
  constructor() {
    this.ecdh = crypto.createECDH('prime256v1');
    this.ecdh.generateKeys();
    this.auth = crypto.randomBytes(16);
  }

  // The same browser in another process.
  static from({ key, auth }) {
    const browser = new Browser();
    browser.ecdh.setPrivateKey(Buffer.from(key, 'base64url'));
    browser.auth = Buffer.from(auth, 'base64url');
    return browser;
  }

  keys() {
    return { key: b64(this.ecdh.getPrivateKey()), auth: b64(this.auth) };
  }

  subscription(endpoint) {
    return { endpoint, keys: { p256dh: b64(this.ecdh.getPublicKey()), auth: b64(this.auth) } };
  }

  decrypt(body) {
    if (body.length > 4096) throw new Error('longer than 4096 bytes');
    const salt = body.subarray(0, 16), size = body.readUInt32BE(16), id = body[20];
    if (id !== 65 || size < 18 || body.length - 86 > size) throw new Error('not one record with a public key');
    const theirs = body.subarray(21, 86), mine = this.ecdh.getPublicKey();
    const ikm = hkdf(this.auth, this.ecdh.computeSecret(theirs), Buffer.concat([Buffer.from('WebPush: info\0'), mine, theirs]), 32);
    const key = hkdf(salt, ikm, Buffer.from('Content-Encoding: aes128gcm\0'), 16), nonce = hkdf(salt, ikm, Buffer.from('Content-Encoding: nonce\0'), 12);
    const decipher = crypto.createDecipheriv('aes-128-gcm', key, nonce);
    decipher.setAuthTag(body.subarray(-16));
    const record = Buffer.concat([decipher.update(body.subarray(86, -16)), decipher.final()]);
    const end = record.findLastIndex ? record.findLastIndex((byte) => byte !== 0) : record.reduce((last, byte, i) => (byte ? i : last), -1);
    if (record[end] !== 2) throw new Error('no delimiter of a last record');
    return record.subarray(0, end);
  }
}

export class WebPushStub extends Stub {
  // answer(push) returns {status, headers, body, delay_ms or after}, {reset} or {never} where it is to be something else than 201.
  constructor(tls, { answer = () => null } = {}) {
    super({ ...tls, allowHTTP1: true });
    this.answer = answer;
    this.browsers = new Map();
  }

  subscribe(name) {
    const browser = new Browser();
    this.browsers.set(`/push/${name}`, browser);
    return browser.subscription(`${this.origin}/push/${name}`);
  }

  check(request, body) {
    const headers = request.headers;
    const match = /^vapid t=([\w-]+)\.([\w-]+)\.([\w-]+), k=([\w-]+)$/.exec(headers.authorization ?? '');
    if (request.method !== 'POST') return [405, 'method'];
    if (!/^\d+$/.test(headers.ttl ?? '')) return [400, 'no TTL'];
    if (headers.topic !== undefined && !/^[\w-]{1,32}$/.test(headers.topic)) return [400, 'topic'];
    if (!['very-low', 'low', 'normal', 'high'].includes(headers.urgency ?? 'normal')) return [400, 'urgency'];
    if (headers['content-encoding'] !== 'aes128gcm') return [415, 'content-encoding'];
    if (!match) return [401, 'no VAPID'];
    const point = Buffer.from(match[4], 'base64url');
    const key = crypto.createPublicKey({ format: 'jwk', key: { kty: 'EC', crv: 'P-256', x: b64(point.subarray(1, 33)), y: b64(point.subarray(33)) } });
    const claims = JSON.parse(Buffer.from(match[2], 'base64url'));
    if (!crypto.verify('sha256', Buffer.from(`${match[1]}.${match[2]}`), { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(match[3], 'base64url'))) return [403, 'signature'];
    if (claims.aud !== this.origin) return [403, 'aud'];
    if (!(claims.exp > Date.now() / 1000) || claims.exp > Date.now() / 1000 + 86400) return [403, 'exp'];
    if (!/^(mailto:.+@|https:\/\/)/.test(claims.sub ?? '')) return [403, 'sub'];
    if (body.length > 4096) return [413, 'size'];
    if (!this.browsers.has(request.url)) return [404, 'no such subscription'];
    return null;
  }

  take(request, body) {
    const wrong = this.check(request, body);
    if (wrong) {
      this.wrong.push(wrong[1]);
      return { status: wrong[0], headers: {}, body: wrong[1] };
    }
    const claims = JSON.parse(Buffer.from(request.headers.authorization.split('.')[1], 'base64url'));
    const push = { at: Date.now(), url: request.url, name: request.url.slice(6), subject: claims.sub, headers: request.headers, topic: request.headers.topic, body, json: null };
    try {
      push.json = JSON.parse(this.browsers.get(request.url).decrypt(body));
    } catch (error) {
      this.wrong.push(`body: ${error.message}`);
    }
    this.pushes.push(push);
    return this.answer(push) ?? { status: 201, headers: { location: `${this.origin}/message/${this.pushes.length}` } };
  }
}
