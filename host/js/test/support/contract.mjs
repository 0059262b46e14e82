// The values of the contract as the vectors write them, and as jco takes and gives them.

/** Fields of 64 bits. */
const U64 = new Set([
  'failure-count-threshold', 'allow-after-ms', 'cyclic-clear-after-ms', 'probe-timeout-ms', 'idle-retention-ms',
  'settings-revision', 'max-ms', 'healthy-after-ms', 'slow-call-after-ms', 'retry-after-max-ms', 'after-ms', 'step-ms',
  'window-ms', 'node', 'sequence', 'retry-of', 'era', 'retry-after-ms', 'until-ms', 'time', 'decaying',
]);

const camel = (name) => name.replace(/-([a-z])/g, (_, letter) => letter.toUpperCase());
const kebab = (name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** A value of a request, from JSON. */
export function fromJson(value, name = '') {
  if (value === null) return undefined;
  if (U64.has(name)) return BigInt(value);
  if (name === 'steps-per-mille') return Uint32Array.from(value);
  if (Array.isArray(value)) return value.map((item) => fromJson(item, `${name}[]`));
  if (typeof value !== 'object') return value;
  const fields = Object.entries(value).map(([field, given]) => [field, fromJson(given, field)]);
  if (name === 'window' || name === 'trip-rules[]') {
    const [[tag, val]] = fields;
    return { tag, val };
  }
  const defaults = {
    settings: { settingsRevision: 0n },
    policies: { tripRules: [], jitterPerMille: 0, retryAfterMaxMs: 600_000n },
    'completions[]': { slow: false },
  };
  return { ...defaults[name], ...Object.fromEntries(fields.map(([field, given]) => [camel(field), given])) };
}

/** A value of an answer, as JSON. */
export function toJson(value) {
  if (value === undefined || value === null) return null;
  if (typeof value === 'bigint') return value > 1n << 53n ? value.toString() : Number(value);
  if (typeof value !== 'object') return value;
  if (Array.isArray(value) || ArrayBuffer.isView(value)) return Array.from(value, toJson);
  const names = Object.keys(value);
  if (typeof value.tag === 'string' && names.every((name) => name === 'tag' || name === 'val')) {
    return value.val === undefined ? value.tag : { [value.tag]: toJson(value.val) };
  }
  return Object.fromEntries(names.map((name) => [kebab(name), toJson(value[name])]));
}

/** The first difference as far as `expected` goes: an object may leave fields out, a list may not. */
export function difference(expected, found, place) {
  const differs = () => `${place}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`;
  const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
  if (isObject(expected) && isObject(found)) {
    for (const [name, field] of Object.entries(expected)) {
      if (!(name in found)) return `${place}.${name} is not there`;
      const problem = difference(field, found[name], `${place}.${name}`);
      if (problem) return problem;
    }
    return undefined;
  }
  if (Array.isArray(expected) && Array.isArray(found)) {
    if (expected.length !== found.length) return differs();
    for (const [index, item] of expected.entries()) {
      const problem = difference(item, found[index], `${place}[${index}]`);
      if (problem) return problem;
    }
    return undefined;
  }
  const types = [typeof expected, typeof found].sort().join();
  if (types === 'number,string') return String(expected) === String(found) ? undefined : differs();
  if (typeof expected === 'string' && expected.startsWith('…') && typeof found === 'string') {
    return found.includes(expected.replace(/^…+|…+$/g, '')) ? undefined : differs();
  }
  return expected === found ? undefined : differs();
}
