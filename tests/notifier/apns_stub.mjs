// apns_stub.mjs - Apple's push service, as strict as it is documented: headers, sizes, provider tokens and how often they change, one
// stream until a first push went through, connections that belong to a team.
import crypto from 'node:crypto';
import { Stub } from './stub.mjs';

export const apnsError = (status, reason, more = {}) => ({ status, headers: { 'content-type': 'application/json' }, body: JSON.stringify({ reason, ...more }) });

export class ApnsStub extends Stub {
  constructor(tls, { key = null, keyId = 'KEYID12345', teamId = 'TEAMID1234', topics = ['org.example.chat'], answer = () => null, goawayAfter = 0 } = {}) {
    super({ ...tls, requestCert: key === null, rejectUnauthorized: false, settings: { maxConcurrentStreams: key === null ? 500 : 1 } });
    Object.assign(this, { key, keyId, teamId, topics, answer, goawayAfter });
    this.providerTokens = []; // {iat, at}
    this.goaways = 0;
  }

  opened(session) {
    session.taken = 0;
    session.wide = this.key === null;
  }

  checkToken(request) {
    const session = request.stream.session;
    if (this.key === null) return session.socket.authorized ? null : ['BadCertificate', 403];
    const match = /^bearer ([\w-]+)\.([\w-]+)\.([\w-]+)$/.exec(request.headers.authorization ?? '');
    if (!match) return ['MissingProviderToken', 403];
    const header = JSON.parse(Buffer.from(match[1], 'base64url')), claims = JSON.parse(Buffer.from(match[2], 'base64url')), now = Date.now() / 1000;
    if (header.alg !== 'ES256' || header.kid !== this.keyId || claims.iss !== this.teamId) return ['InvalidProviderToken', 403];
    if (!crypto.verify('sha256', Buffer.from(`${match[1]}.${match[2]}`), { key: this.key, dsaEncoding: 'ieee-p1363' }, Buffer.from(match[3], 'base64url'))) return ['InvalidProviderToken', 403];
    if (claims.iat < now - 3600 || claims.iat > now + 60) return ['ExpiredProviderToken', 403];
    if (session.team && session.team !== claims.iss) return ['Forbidden', 403];
    session.team = claims.iss;
    if (!this.providerTokens.some((token) => token.iat === claims.iat)) this.providerTokens.push({ iat: claims.iat, at: now });
    if (this.providerTokens.filter((token) => token.at > now - 1200).length > 2) return ['TooManyProviderTokenUpdates', 429];
    return null;
  }

  checkPush(request, body) {
    const headers = request.headers, type = headers['apns-push-type'];
    const one = (name) => !(headers[name] ?? '').includes(',');
    if (request.method !== 'POST') return ['MethodNotAllowed', 405];
    if (!/^\/3\/device\/[0-9a-f]+$/i.test(request.url)) return ['BadPath', 404];
    if (!headers['apns-topic']) return ['MissingTopic', 400];
    if (!this.topics.includes(headers['apns-topic'])) return ['TopicDisallowed', 400];
    if (!['alert', 'background', 'voip', 'complication', 'fileprovider', 'mdm', 'location', 'liveactivity', 'pushtotalk'].includes(type)) return ['InvalidPushType', 400];
    if (!['1', '5', '10', undefined].includes(headers['apns-priority']) || (type === 'background' && headers['apns-priority'] !== '5')) return ['BadPriority', 400];
    if (!/^\d+$/.test(headers['apns-expiration'] ?? '0')) return ['BadExpirationDate', 400];
    if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(headers['apns-id'] ?? '')) return ['BadMessageId', 400];
    if (Buffer.byteLength(headers['apns-collapse-id'] ?? '') > 64) return ['BadCollapseId', 400];
    if (!['apns-id', 'apns-topic', 'apns-priority'].every(one)) return ['DuplicateHeaders', 400];
    if (body.length === 0) return ['PayloadEmpty', 400];
    if (body.length > 4096) return ['PayloadTooLarge', 413];
    const aps = JSON.parse(body).aps;
    if (!aps || (type === 'alert' && !aps.alert) || (type === 'background' && (aps['content-available'] !== 1 || aps.alert || aps.sound))) return ['InvalidPushType', 400];
    return null;
  }

  take(request, body) {
    const session = request.stream.session;
    if (!session) return null; // it has been closed meanwhile
    const wrong = this.checkToken(request) ?? this.checkPush(request, body);
    const id = { 'apns-id': request.headers['apns-id'] ?? crypto.randomUUID() };
    if (wrong) {
      this.wrong.push(wrong[0]);
      const answer = apnsError(wrong[1], wrong[0]);
      return { ...answer, headers: { ...answer.headers, ...id } };
    }
    const push = { at: Date.now(), name: request.url.slice(10), id: request.headers['apns-id'], headers: request.headers, json: JSON.parse(body) };
    this.pushes.push(push);
    const answer = this.answer(push);
    if (!answer && !session.wide) {
      session.wide = true;
      session.settings({ maxConcurrentStreams: 500 });
    }
    if (this.goawayAfter && ++session.taken >= this.goawayAfter && !session.going) {
      session.going = true;
      this.goaways++;
      session.goaway(0, request.stream.id, Buffer.from(JSON.stringify({ reason: 'Shutdown' })));
    }
    return answer ? { ...answer, headers: { ...answer.headers, ...id } } : { status: 200, headers: id };
  }
}
