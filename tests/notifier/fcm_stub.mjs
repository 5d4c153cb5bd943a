// fcm_stub.mjs - Firebase Cloud Messaging (HTTP v1) and Google's token endpoint, as strict as they are documented.
import crypto from 'node:crypto';
import { Stub } from './stub.mjs';

const FCM_ERROR = 'type.googleapis.com/google.firebase.fcm.v1.FcmError';
const GRACE_MS = 60000; // so much longer than it says is an access token good: on its way a request may stand still
const known = {
  message: ['name', 'data', 'notification', 'android', 'webpush', 'apns', 'fcm_options', 'token', 'topic', 'condition', 'fid'],
  notification: ['title', 'body', 'image'],
  android: ['collapse_key', 'priority', 'ttl', 'restricted_package_name', 'data', 'notification', 'fcm_options', 'direct_boot_ok'],
  'android.notification': ['title', 'body', 'icon', 'color', 'sound', 'tag', 'click_action', 'channel_id', 'ticker', 'notification_count'],
  apns: ['headers', 'payload', 'fcm_options', 'live_activity_token'],
};

export const fcmError = (status, code, { rpc = null, message = code, headers = {}, violations = null } = {}) => ({
  status, headers: { 'content-type': 'application/json; charset=UTF-8', ...headers },
  body: JSON.stringify({ error: { code: status, message, status: rpc ?? code, details: [
    ...(rpc === null && status === 401 ? [] : [{ '@type': FCM_ERROR, errorCode: code }]),
    ...(violations ? [{ '@type': 'type.googleapis.com/google.rpc.BadRequest', fieldViolations: violations }] : [])] } }),
});

export class FcmStub extends Stub {
  // key: the service account's public key (PEM). answer(push) as in webpush_stub.
  constructor(tls, { key, project = 'demo-project', email = 'push@demo-project.iam.gserviceaccount.com', lifetime_s = 3600, answer = () => null } = {}) {
    super(tls);
    Object.assign(this, { key, project, email, lifetime_s, answer });
    this.tokens = new Map();
    this.fetched = 0;
    this.refusing = false; // every access token
    this.tokenAnswer = () => null;
  }

  token(body) {
    const form = new URLSearchParams(body.toString());
    const complain = (why) => { this.wrong.push(`token: ${why}`); return { status: 400, headers: {}, body: JSON.stringify({ error: 'invalid_grant', error_description: why }) }; };
    if (form.get('grant_type') !== 'urn:ietf:params:oauth:grant-type:jwt-bearer') return complain('grant_type');
    const [header, claims, signature] = (form.get('assertion') ?? '').split('.');
    const parsed = JSON.parse(Buffer.from(claims, 'base64url')), now = Date.now() / 1000;
    if (JSON.parse(Buffer.from(header, 'base64url')).alg !== 'RS256') return complain('alg');
    if (!crypto.verify('sha256', Buffer.from(`${header}.${claims}`), this.key, Buffer.from(signature, 'base64url'))) return complain('signature');
    if (parsed.iss !== this.email || parsed.aud !== `${this.origin}/token`) return complain('iss or aud');
    if (parsed.scope !== 'https://www.googleapis.com/auth/firebase.messaging') return complain('scope');
    if (!(parsed.iat <= now + 60) || !(parsed.exp > now) || parsed.exp - parsed.iat > 3600) return complain('iat or exp');
    const own = this.tokenAnswer();
    if (own) return own;
    this.fetched++;
    const token = `ya29.${crypto.randomBytes(24).toString('base64url')}`;
    this.tokens.set(token, Date.now() + this.lifetime_s * 1000 + GRACE_MS);
    return { status: 200, headers: { 'content-type': 'application/json' }, body: JSON.stringify({ access_token: token, expires_in: this.lifetime_s, token_type: 'Bearer' }) };
  }

  // What the real service calls INVALID_ARGUMENT.
  checkMessage(text) {
    const { message, validate_only: _, ...rest } = JSON.parse(text);
    const unknown = (object, names) => Object.keys(object ?? {}).filter((name) => !names.includes(name));
    if (Object.keys(rest).length || !message) return 'unknown field beside message';
    for (const [path, names] of Object.entries(known)) {
      const object = path === 'message' ? message : path.split('.').reduce((at, name) => at?.[name], message);
      if (unknown(object, names).length) return `unknown field ${path}.${unknown(object, names)[0]}`;
    }
    if (['token', 'topic', 'condition', 'fid'].filter((name) => name in message).length !== 1) return 'exactly one target';
    for (const [name, value] of Object.entries(message.data ?? {})) {
      if (typeof value !== 'string') return `data.${name} is no string`;
      if (/^(from|message_type|google\..*|gcm\.notification\..*)$/.test(name)) return `data.${name} is reserved`;
    }
    if (message.android && !/^\d+(\.\d+)?s$/.test(message.android.ttl ?? '0s')) return 'android.ttl';
    if (message.android && parseFloat(message.android.ttl ?? '0') > 2419200) return 'android.ttl';
    if (!['high', 'normal', undefined].includes(message.android?.priority)) return 'android.priority';
    if (Object.entries(message.apns?.headers ?? {}).some(([, value]) => typeof value !== 'string')) return 'apns.headers';
    if (Buffer.byteLength(JSON.stringify({ ...message.data, ...message.notification })) > 4096) return 'larger than 4096 bytes';
    return null;
  }

  take(request, body) {
    if (request.url === '/token') return this.token(body);
    const bearer = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1];
    if (request.url !== `/v1/projects/${this.project}/messages:send` || request.method !== 'POST') {
      this.wrong.push(`path ${request.url}`);
      return fcmError(404, 'NOT_FOUND', { rpc: 'NOT_FOUND' });
    }
    if (this.refusing || !(this.tokens.get(bearer) > Date.now())) return { status: 401, headers: {}, body: JSON.stringify({ error: { code: 401, message: 'Request had invalid authentication credentials.', status: 'UNAUTHENTICATED' } }) };
    let wrong;
    try { wrong = this.checkMessage(body.toString()); } catch (error) { wrong = error.message; }
    if (wrong) {
      this.wrong.push(wrong);
      return fcmError(400, 'INVALID_ARGUMENT', { message: wrong });
    }
    const { message } = JSON.parse(body);
    const push = { at: Date.now(), name: message.token, message, headers: request.headers };
    this.pushes.push(push);
    return this.answer(push) ?? { status: 200, headers: { 'content-type': 'application/json; charset=UTF-8' }, body: JSON.stringify({ name: `projects/${this.project}/messages/0:${this.pushes.length}%31bd1c96` }) };
  }
}
