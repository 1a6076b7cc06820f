// Drives every operation, status and problem type of the API document through Prism to the sandbox.
//
// Started by ./check, which says what the variables in the environment are. `through` sends by way of Prism, `past` goes
// to the sandbox itself, for requests that are wrong on purpose and that Prism would refuse on its own. Either way the
// answer is held to the document: its status and media type must be listed, its body must fit the schema.

'use strict';

const { createRequire } = require('module');
const { readFileSync } = require('fs');
const path = require('path');

const { SANDBOX, PRISM, TOKEN, DOCUMENT, MODULES } = process.env;
const fromCache = createRequire(path.join(MODULES, 'node_modules', 'prism.js'));
const Ajv = fromCache('ajv/dist/2020').default;
const addFormats = fromCache('ajv-formats').default;
const document = fromCache('js-yaml').load(readFileSync(DOCUMENT, 'utf8'));

const ajv = new Ajv({ strict: false, allErrors: true });
addFormats(ajv);
// Under a name, so that every part of the document is a schema that can be referred to.
ajv.addSchema(document, 'api');

const failures = [];
const seen = { operations: new Set(), problems: new Set() };
let checks = 0;

function fail(what, ...details) {
  failures.push(what);
  console.log(`contract: FAILED ${what}`, ...details);
}

const pointer = (...parts) =>
  'api#/' + parts.map((p) => encodeURIComponent(String(p).replace(/~/g, '~0').replace(/\//g, '~1'))).join('/');

function fits(schema, value) {
  const validate = ajv.getSchema(schema) || ajv.compile({ $ref: schema });
  return validate(value) ? null : ajv.errorsText(validate.errors);
}

/** The document's path and operation for a request, or null where it has none. */
function operationOf(method, url) {
  const parts = url.split('?')[0].split('/').slice(1);
  for (const [template, item] of Object.entries(document.paths)) {
    const wanted = template.split('/').slice(1);
    const same = wanted.length === parts.length && wanted.every((w, i) => w.startsWith('{') || w === parts[i]);
    if (same) return { template, method: method.toLowerCase(), operation: item[method.toLowerCase()] };
  }
  return null;
}

/** Holds an answer to the document: status, media type, headers, body. */
function judge(what, method, url, answer) {
  const place = operationOf(method, url);
  const type = (answer.headers.get('content-type') || '').split(';')[0];
  const listed = place?.operation?.responses[answer.status];
  if (!answer.headers.get('x-request-id')) fail(what, 'has no x-request-id');
  if (listed) {
    const schema = pointer('paths', place.template, place.method, 'responses', answer.status, 'content', type, 'schema');
    if (!listed.content[type]) return fail(what, `media type ${type} is not listed`);
    const wrong = fits(schema, answer.body);
    if (wrong) return fail(what, wrong);
    if (answer.status === 201 && !answer.headers.get('location')) fail(what, 'has no Location');
    seen.operations.add(`${place.operation.operationId} ${answer.status}`);
    return undefined;
  }
  if (type !== 'application/problem+json') return fail(what, `${answer.status} as ${type}`, answer.text.slice(0, 200));
  const wrong = fits(pointer('components', 'schemas', 'Problem'), answer.body);
  if (wrong) return fail(what, wrong);
  if (answer.body.status !== answer.status) fail(what, 'the body names another status');
  if (answer.status === 429 && !answer.headers.get('retry-after')) fail(what, 'has no Retry-After');
  for (const error of answer.body.errors || []) {
    if (!document.components.schemas.Employee.properties[error.field] && !what.includes('unknown property')) {
      fail(what, `errors name ${error.field}, which is no property of Employee`);
    }
  }
  seen.problems.add(answer.body.type);
  if (place?.operation) seen.operations.add(`${place.operation.operationId} default`);
  return undefined;
}

async function send(base, method, url, { body, headers = {}, token = TOKEN, raw } = {}) {
  const media = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
  const all = { ...(token && { authorization: `Bearer ${token}` }), ...(body !== undefined && { 'content-type': media }), ...headers };
  const response = await fetch(base + url, { method, headers: all, body: raw ?? (body && JSON.stringify(body)), redirect: 'manual' });
  const text = await response.text();
  let parsed;
  try {
    parsed = JSON.parse(text);
  } catch {
    parsed = undefined;
  }
  return { status: response.status, headers: response.headers, text, body: parsed };
}

const isPrisms = (answer) => String(answer.body?.type).includes('stoplight.io') || answer.headers.has('sl-violations');

/** `expected`: a status, or a problem's status and type. */
function compare(what, answer, expected) {
  const [status, problem] = String(expected).split(' ');
  const got = `${answer.status} ${answer.body?.type ?? ''}`;
  if (String(answer.status) !== status || (problem && answer.body?.type !== `/problems/${problem}`)) {
    fail(what, `expected ${expected}, got ${got}`, answer.text.slice(0, 300));
  }
}

async function through(what, expected, method, url, options) {
  checks += 1;
  const answer = await send(PRISM, method, url, options);
  if (isPrisms(answer)) fail(what, 'Prism found a violation:', answer.text, answer.headers.get('sl-violations') ?? '');
  else {
    judge(what, method, url, answer);
    compare(what, answer, expected);
  }
  return answer;
}

async function past(what, expected, method, url, options) {
  checks += 1;
  const answer = await send(`${SANDBOX}/api/v1`, method, url, options);
  judge(what, method, url, answer);
  compare(what, answer, expected);
  return answer;
}

async function control(method, url, raw) {
  const answer = await send(SANDBOX, method, `/_sandbox/${url}`, { raw });
  if (answer.status >= 300) fail(`control ${method} ${url}`, answer.text);
  return answer;
}

let keys = 0;
const key = (name = `contract-${(keys += 1)}`) => ({ 'idempotency-key': name.padEnd(16, '-') });
const home = '/platforms/demo';
const employees = `${home}/employees`;

const person = (id, changes = {}) => ({
  externalId: id, sourceVersion: 10, title: 'Dr', forenames: 'Grace', surname: 'Hopper', dateOfBirth: '1976-12-09',
  gender: 'Female', email: `grace.${id}@example.com`, annualPay: '52000.00', payBasis: 'Annual', payFrequency: 'Monthly',
  payChangeReason: 'New starter', ...changes,
});

const everything = {
  employeeNumber: 'E-1', knownAs: 'Amazing', nationalInsuranceNumber: 'QQ123456C', telephone: '020 7946 0000',
  mobile: '07700 900000', addressLine1: '1 High Street', addressLine2: 'Flat 2', addressLine3: 'Old Town', addressLine4: 'Kent',
  postcode: 'ME1 1AA', countryCode: 'GB', startDate: '2020-01-01', continuousServiceDate: '2019-01-01', leaveDate: '2020-06-30',
  jobTitle: 'Admiral', grade: 'A', department: 'Navy', location: 'London', weeklyHours: '37.5', fte: '0.6', currency: 'GBP',
  payEffectiveDate: '2026-01-01', packageId: 'executive',
};

async function reads() {
  await through('the platform', 200, 'GET', home);
  await through('the packages', 200, 'GET', `${home}/packages`);
  await through('the picklists', 200, 'GET', `${home}/picklists`);
  const first = await through('a page of self-registered accounts', 200, 'GET', `${employees}?limit=5`);
  const next = await through('the last page', 200, 'GET', `${employees}?limit=5&cursor=${first.body.nextCursor}`);
  if (next.body.items?.length !== 2 || next.body.nextCursor !== null) fail('the last page', next.text);
  const { id, email } = first.body.items[0];
  await through('a self-registered account', 200, 'GET', `${employees}/${id}`);
  await through('by email', 200, 'GET', `${employees}?email=${encodeURIComponent(email.toUpperCase())}`);
  await through('by an HR id nobody has', 200, 'GET', `${employees}?externalId=none`);
  await through('another platform', '404 not-found', 'GET', '/platforms/other');
  await through('an employee who is not there', '404 not-found', 'GET', `${employees}/nobody`);
  await through('a wrong token', '401 unauthenticated', 'GET', home, { token: 'wrong' });
  return id;
}

async function writes(registered) {
  const create = (what, expected, body, headers = key()) => through(what, expected, 'POST', employees, { body, headers });
  const patch = (what, expected, id, body, headers = key()) =>
    through(what, expected, 'PATCH', `${employees}/${id}`, { body, headers });
  const made = await create('a create', 201, person('1'), key('create-1'));
  const { id } = made.body;
  const again = await create('a repeated create', 201, person('1'), key('create-1'));
  if (again.text !== made.text) fail('a repeated create', 'is answered differently');
  await create('a reused key', '422 idempotency-key-reused', person('2'), key('create-1'));
  await create('a create with everything', 201, person('2', everything));
  await create('a taken email', '409 email-in-use', person('3', { email: 'GRACE.1@example.com' }));
  await create('a taken HR id', '409 external-id-in-use', person('1', { email: 'other@example.com' }));
  await create('an unknown package', '422 unknown-package', person('3', { packageId: 'gold' }));
  await create('an unknown title', '422 validation', person('3', { title: 'Baron', gender: 'none' }));
  await patch('a patch', 200, id, { sourceVersion: 11, ...everything });
  const cleared = Object.fromEntries(Object.keys(everything).map((name) => [name, null]));
  await patch('a patch that clears', 200, id, { sourceVersion: 12, ...cleared });
  await patch('a lower version', '409 stale-source-version', id, { sourceVersion: 11, mobile: '1' });
  await patch('a link', 200, registered, { sourceVersion: 1, externalId: '77' });
  await patch('a second link', '409 external-id-mismatch', registered, { sourceVersion: 2, externalId: '78' });
  await patch('a moved link', 200, registered, { sourceVersion: 2, externalId: '78', previousExternalId: '77' });
  await patch('a patch of nobody', '404 not-found', 'nobody', { sourceVersion: 1 });
  await control('DELETE', `accounts/${registered}?gone=true`);
  await patch('a patch of an account that is gone', '410 gone', registered, { sourceVersion: 3 });
  await through('an account that is gone', '410 gone', 'GET', `${employees}/${registered}`);
  return id;
}

async function troubles(id) {
  const url = `${employees}/${id}`;
  const faults = {
    'rate-limited,retry-after=2': '429 rate-limited', 'rate-limited,retry-after=date:30': '429 rate-limited',
    unavailable: '503 unavailable', 'unavailable,retry-after=3': '503 unavailable', internal: '500 internal',
    forbidden: '403 forbidden', unauthenticated: '401 unauthenticated', reject: '422 validation',
  };
  for (const [fault, expected] of Object.entries(faults)) {
    await control('POST', 'faults', `${fault},next=1`);
    await through(`fault ${fault}`, expected, 'PATCH', url, { body: { sourceVersion: 20 }, headers: key() });
  }
  await control('POST', 'suspend');
  await through('a suspended platform', 200, 'GET', home);
  for (const place of [`${home}/packages`, `${home}/picklists`, employees, url]) {
    await through(`suspended ${place}`, '403 platform-suspended', 'GET', place);
  }
  const starter = { body: person('9'), headers: key() };
  await through('a create while suspended', '403 platform-suspended', 'POST', employees, starter);
  await control('POST', 'resume');
  await control('POST', 'faults', 'slow,delay=2s,next=1');
  const body = { sourceVersion: 30, surname: 'Murray' };
  const slow = through('a slow patch', 200, 'PATCH', url, { body, headers: key('slow-1') });
  // The slow one is under way once its fault is spent.
  while ((await control('GET', 'faults')).body.length) await new Promise((resolve) => setTimeout(resolve, 10));
  await through('a key in progress', '409 request-in-progress', 'PATCH', url, { body, headers: key('slow-1') });
  await slow;
}

async function wrongRequests(id) {
  const url = `${employees}/${id}`;
  const post = { body: person('5'), headers: key() };
  for (const query of ['limit=0', 'limit=501', 'limit=ten', 'cursor=nonsense', 'email=%ff']) {
    await past(`the query ${query}`, '400 bad-request', 'GET', `${employees}?${query}`);
  }
  await past('no token', '401 unauthenticated', 'GET', home, { token: null });
  await past('no JSON', '400 bad-request', 'POST', employees, { ...post, raw: '{"externalId":' });
  await past('no object', '422 validation', 'POST', employees, { ...post, raw: '[]' });
  await past('no key', '400 bad-request', 'POST', employees, { body: person('5') });
  await past('a short key', '400 bad-request', 'PATCH', url, { body: { sourceVersion: 40 }, headers: { 'idempotency-key': 'short' } });
  const text = { 'content-type': 'text/plain', ...key() };
  await past('a text', '415 unsupported-media-type', 'POST', employees, { ...post, headers: text });
  const json = { 'content-type': 'application/json', ...key() };
  await past('a patch as plain JSON', '415 unsupported-media-type', 'PATCH', url, { body: { sourceVersion: 40 }, headers: json });
  await past('a delete', '405 method-not-allowed', 'DELETE', url);
  await past('a put', '405 method-not-allowed', 'PUT', employees, post);
  await past('no such place', '404 not-found', 'GET', `${home}/levels`);
  await past('an empty record', '422 validation', 'POST', employees, { body: {}, headers: key() });
  const bad = person('5', { forenames: '', annualPay: '-1.00', email: 'x', dateOfBirth: '2026-02-30', surname: 'x'.repeat(101), fte: '2' });
  const answer = await past('a bad record', '422 validation', 'POST', employees, { body: bad, headers: key() });
  const codes = new Set(answer.body.errors.map((error) => error.code));
  for (const code of ['required', 'format', 'too-long', 'out-of-range']) if (!codes.has(code)) fail('a bad record', `lacks ${code}`);
  await past('an unknown property', '422 validation', 'PATCH', url, { body: { sourceVersion: 40, nick: 'x' }, headers: key() });
}

/** Whether Prism is awake: these must be violations. */
async function violations(id) {
  const request = await send(PRISM, 'GET', `${employees}?limit=0`);
  if (request.status !== 422 || !isPrisms(request)) fail('Prism lets a bad request pass', request.text);
  const nick = { body: { sourceVersion: 50, nick: 'x' }, headers: key() };
  const patch = await send(PRISM, 'PATCH', `${employees}/${id}`, nick);
  if (patch.status !== 422 || !isPrisms(patch)) fail('Prism lets a bad patch pass', patch.text);
  const starter = { body: person('5', { annualPay: 52000 }), headers: key() };
  const create = await send(PRISM, 'POST', employees, starter);
  if (create.status !== 422 || !isPrisms(create)) fail('Prism lets a bad create pass', create.text);
  // Seeded accounts are not held to the document, so this one is shown with an email that cannot be.
  const seeded = await control('POST', 'accounts', '{"email":"no email at all"}');
  const answer = await send(PRISM, 'GET', `${employees}/${seeded.body.id}`);
  if (answer.status !== 500 || !isPrisms(answer)) fail('Prism lets a bad answer pass', answer.text);
}

function coverage() {
  const types = document.components.responses.Problem.description.match(/\/problems\/[a-z-]+/g);
  for (const type of new Set(types)) if (!seen.problems.has(type)) fail(`never saw ${type}`);
  for (const type of seen.problems) if (!types.includes(type)) fail(`${type} is not in the document`);
  for (const item of Object.values(document.paths)) {
    for (const operation of Object.values(item).filter((one) => one.operationId)) {
      for (const status of Object.keys(operation.responses)) {
        if (!seen.operations.has(`${operation.operationId} ${status}`)) fail(`never saw ${operation.operationId} ${status}`);
      }
    }
  }
}

async function main() {
  const registered = await reads();
  const id = await writes(registered);
  await troubles(id);
  await wrongRequests(id);
  await violations(id);
  coverage();
  console.log(`contract: ${checks} requests, ${seen.problems.size} problem types, ${failures.length} failures`);
  process.exitCode = failures.length ? 1 : 0;
}

main().catch((error) => {
  console.log('contract: FAILED', error);
  process.exitCode = 1;
});
