/** Names: what a circuit may be called, and how it is called by default. */

/** The most bytes that a circuit's name may have, as `wit/` says. */
export const NAME_MAX_BYTES = 1024;

/** What a breaker is for, beside its name: the tenant, the region. Goes to callbacks, so keep secrets out of it. */
export type Context = Readonly<Record<string, string>>;

const encoder = new TextEncoder();

/** How many bytes a text has in UTF-8. */
export function utf8Length(text: string): number {
  return encoder.encode(text).length;
}

/**
 * Whether a text has no half of a surrogate pair. One that has is no Unicode text: written as UTF-8 each half becomes U+FFFD, so
 * that two names become one.
 */
export function isWellFormed(text: string): boolean {
  const known = (text as { isWellFormed?: () => boolean }).isWellFormed;
  if (typeof known === 'function') return known.call(text);
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    if (unit < 0xd800 || unit > 0xdfff) continue;
    const next = text.charCodeAt(index + 1);
    if (unit > 0xdbff || !(next >= 0xdc00 && next <= 0xdfff)) return false;
    index++;
  }
  return true;
}

/** What is wrong with a text of `least` to `most` bytes, and what would do; nothing is wrong with `undefined`. */
export function textProblem(text: unknown, least: number, most: number): string | undefined {
  if (typeof text !== 'string') return `it is no text but ${typeof text}; give a string of ${least} to ${most} bytes`;
  if (!isWellFormed(text)) {
    return 'it has half of a surrogate pair, which is no text and would share its bytes with others; give well-formed Unicode';
  }
  // Most are short, and a character has three bytes at most for each of its units.
  if (text.length * 3 <= most && text.length >= least) return undefined;
  const length = utf8Length(text);
  if (length < least) return `it is empty; give it ${least} to ${most} bytes`;
  if (length > most) return `it has ${length} bytes; shorten it to at most ${most}`;
  return undefined;
}

/** What is wrong with a circuit's name. */
export function nameProblem(name: unknown): string | undefined {
  return textProblem(name, 1, NAME_MAX_BYTES);
}

/**
 * The default name of a circuit: the name itself, and `name/tenant` where the context has a tenant.
 *
 * So that no two pairs share a circuit, `%` and `/` within a part become `%25` and `%2F`. It is the same in every host.
 *
 * @example
 * ```ts
 * defaultName('emails', {}); // 'emails'
 * defaultName('emails', { tenant: 'a/b' }); // 'emails/a%2Fb'
 * ```
 */
export function defaultName(name: string, context: Context): string {
  const tenant = Object.hasOwn(context, 'tenant') ? context['tenant'] : undefined;
  return tenant === undefined ? escape(name) : `${escape(name)}/${escape(tenant)}`;
}

function escape(part: string): string {
  return part.replaceAll('%', '%25').replaceAll('/', '%2F');
}

/** A name for a message: whatever it is, it stays on a line, and is not longer than one. */
export function shortened(name: string): string {
  const shown = JSON.stringify(name.slice(0, 120)).replace(/[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (unit) => {
    return `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
  return name.length > 120 ? `${shown}…` : shown;
}
