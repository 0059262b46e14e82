// The rules that every store passes, by the names that they have in circuitry-store. Each is a function of a harness:
//   open()              a new handle, with a connection of its own; all handles of one harness share their entries
//   waitMs(ms)          lets so much of the store's time pass
//   openUnreachable()   a handle on a store that is out of reach
//   openLosingAnswer()  a handle that shares the entries, and whose next swap is sent while its answer is lost
//   openApart()         a handle that shares no entries
//   watch(store)        what is announced on the store's channel, as `{ next(ms), close() }`; `undefined`: this store does not push
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { NAME_MAX_BYTES, StoreError } from '../../dist/index.js';

const bytes = (value) => (typeof value === 'string' ? new TextEncoder().encode(value) : Uint8Array.from(value));
const text = (value) => new TextDecoder().decode(value);
const hex = (value) => value && Buffer.from(value).toString('hex');
const plain = (entry) => entry && { value: hex(entry.value), version: hex(entry.version) };

/** Writes over `expected`, which must be the version of the entry. */
async function write(store, circuit, expected, value, ttlMs) {
  const swapped = await store.swap(circuit, expected, bytes(value), ttlMs);
  assert.equal(swapped.stored, true, `nobody else writes ${JSON.stringify(circuit)}, yet a swap on ${hex(expected)} lost`);
  return swapped;
}

/** Swaps on `expected`, which must not be the version of the entry, and gives what the conflict brought. */
async function lose(store, circuit, expected) {
  const swapped = await store.swap(circuit, expected, bytes('this must not be stored'), undefined);
  assert.equal(swapped.stored, false, `a swap of ${JSON.stringify(circuit)} on what is not its version was stored`);
  return swapped;
}

function present(loaded, what) {
  assert.ok(loaded.entry, `${what}: the entry is absent`);
  return loaded.entry;
}

const WRITERS = 64;
const INCREMENTS_OF_EACH = 2;
const SHORT_MS = 200;
const LIFE_MS = 1_000;
const LONG_MS = 3_600_000;
const outwait = (harness, ttlMs) => harness.waitMs(ttlMs + 1);

async function loseAnswer(harness, circuit, expected, value) {
  const lossy = await harness.openLosingAnswer();
  await assert.rejects(lossy.swap(circuit, expected, bytes(value), undefined), { name: 'StoreError', kind: 'unknown' });
  return lossy;
}

async function loseOrReconnect(store, circuit) {
  for (let tries = 0; tries < 100; tries++) {
    try {
      await store.load(circuit);
      return await lose(store, circuit, undefined);
    } catch (error) {
      if (!(error instanceof StoreError && error.kind === 'unavailable')) throw error;
      await sleep(50);
    }
  }
  return assert.fail('a handle that lost one answer has not worked again for 5 s');
}

/** Announces, and waits until the watch tells of it; it tells of nothing that was never announced. */
async function hear(watch, announced, announcer, circuit) {
  announced.push(circuit);
  for (let attempt = 0; attempt < 5; attempt++) {
    await announcer.announce(circuit);
    for (let heard = await watch.next(2_000); heard !== undefined; heard = await watch.next(2_000)) {
      if (heard === circuit) return;
      assert.ok(announced.includes(heard), `${JSON.stringify(circuit)} was announced, and the watch tells of ${heard}`);
    }
  }
  assert.fail(`${JSON.stringify(circuit)} was announced five times, and the watch does not tell of it`);
}

export const rules = {
  async a_write_is_read(harness) {
    const store = await harness.open();
    assert.equal((await store.load('circuit')).entry, undefined, 'a circuit that nobody wrote has no entry');
    const everyByte = Array.from({ length: 256 }, (_, byte) => byte);
    let expected;
    for (const value of ['first', '', everyByte, '{"json":1}', '\r\n$-1\r\n']) {
      const { version } = await write(store, 'circuit', expected, value);
      const { entry } = await store.load('circuit');
      assert.deepEqual(plain(entry), plain({ value: bytes(value), version }));
      expected = version;
    }
  },

  async values_of_64_kb_are_kept(harness) {
    const store = await harness.open();
    const value = Uint8Array.from({ length: 65_536 }, (_, index) => (index * 31) >> 3);
    await write(store, 'large', undefined, value);
    const read = present(await store.load('large'), '64 kB were stored');
    assert.equal(hex(read.value), hex(value));
    assert.deepEqual(plain(present(await lose(store, 'large', undefined), '64 kB were stored')), plain(read));
  },

  async two_handles_share_data(harness) {
    const [one, other] = [await harness.open(), await harness.open()];
    const first = await write(one, 'shared', undefined, 'one');
    const seen = present(await other.load('shared'), 'the other handle wrote it');
    assert.deepEqual(plain(seen), plain({ value: bytes('one'), version: first.version }));
    const second = await write(other, 'shared', seen.version, 'other');
    const brought = present(await lose(one, 'shared', first.version), 'the other handle replaced it');
    assert.deepEqual(plain(brought), plain({ value: bytes('other'), version: second.version }));
  },

  async a_lost_race_brings_the_entry_that_won(harness) {
    const store = await harness.open();
    const neverWritten = bytes('never written!!!');
    assert.equal((await lose(store, 'race', neverWritten)).entry, undefined);
    assert.equal((await store.load('race')).entry, undefined, 'a lost race creates no entry');
    const first = await write(store, 'race', undefined, 'first');
    const winner = plain({ value: bytes('first'), version: first.version });
    for (const expected of [undefined, bytes(''), bytes('\0'), Uint8Array.of(...first.version, 120), neverWritten]) {
      assert.deepEqual(plain((await lose(store, 'race', expected)).entry), winner);
      assert.deepEqual(plain((await store.load('race')).entry), winner, 'a lost race writes nothing');
    }
    const second = await write(store, 'race', first.version, 'second');
    const brought = present(await lose(store, 'race', first.version), 'it was replaced, not removed');
    assert.deepEqual(plain(brought), plain({ value: bytes('second'), version: second.version }));
    await write(store, 'race', brought.version, 'third');
  },

  async of_64_creators_one_wins(harness) {
    const handles = [await harness.open(), await harness.open()];
    const swaps = Array.from({ length: WRITERS }, (_, creator) => {
      return handles[creator % 2].swap('new', undefined, Uint8Array.of(creator), undefined);
    });
    const swapped = await Promise.all(swaps);
    const stored = swapped.filter((swap) => swap.stored).map(({ version }) => hex(version));
    assert.equal(stored.length, 1, 'one of 64 swaps that expect no entry is stored');
    for (const swap of swapped.filter((each) => !each.stored)) {
      assert.equal(hex(present(swap, 'somebody else created it').version), stored[0]);
    }
    assert.equal(hex(present(await handles[0].load('new'), 'somebody created it').version), stored[0]);
  },

  async swap_is_atomic_under_64_concurrent_writers(harness) {
    const handles = [await harness.open(), await harness.open()];
    const countUp = async (store) => {
      const written = [];
      let known = (await store.load('count')).entry;
      while (written.length < INCREMENTS_OF_EACH) {
        const next = (known ? Number(text(known.value)) : 0) + 1;
        const value = bytes(String(next));
        const swapped = await store.swap('count', known?.version, value, undefined);
        if (swapped.stored) written.push(next);
        known = swapped.stored ? { value, version: swapped.version } : swapped.entry;
      }
      return written;
    };
    const written = (await Promise.all(Array.from({ length: WRITERS }, (_, writer) => countUp(handles[writer % 2])))).flat();
    const all = Array.from({ length: WRITERS * INCREMENTS_OF_EACH }, (_, index) => index + 1);
    assert.deepEqual(written.sort((one, other) => one - other), all, 'a gap or a repetition is a lost update');
    assert.equal(text(present(await handles[1].load('count'), 'it was written').value), String(all.length));
  },

  async versions_never_repeat(harness) {
    const store = await harness.open();
    const seen = new Set();
    const isNew = ({ version }) => !seen.has(hex(version)) && seen.add(hex(version));
    for (let life = 0; life < 3; life++) {
      let expected;
      for (let count = 0; count < 20; count++) {
        // Only the last write of a life is mortal, so that a pause of the machine does not end it early.
        const receipt = await write(store, 'again', expected, 'the same', count === 19 ? SHORT_MS : undefined);
        assert.ok(isNew(receipt), `a version came twice, in life ${life}`);
        expected = receipt.version;
      }
      await outwait(harness, SHORT_MS);
    }
    assert.ok(isNew(await write(store, 'another', undefined, 'the same')), 'two circuits have had the same version');
  },

  async an_entry_lives_as_long_as_its_time_to_live_and_no_longer(harness) {
    const store = await harness.open();
    await write(store, 'for ever', undefined, 'kept');
    // A machine that pauses for longer than the entry lives proves nothing, so it gets more time on the next round.
    for (const ttlMs of [LIFE_MS, 4 * LIFE_MS, 16 * LIFE_MS]) {
      const circuit = `for ${ttlMs}`;
      const begun = performance.now();
      await write(store, circuit, undefined, 'mortal', ttlMs);
      await harness.waitMs(ttlMs / 2);
      const halfway = (await store.load(circuit)).entry;
      if (!halfway && performance.now() - begun >= ttlMs) continue;
      assert.ok(halfway, `an entry with ${ttlMs} ms to live was gone after half of them`);
      await outwait(harness, ttlMs / 2);
      assert.equal((await store.load(circuit)).entry, undefined, `an entry outlived its ${ttlMs} ms`);
      assert.ok((await store.load('for ever')).entry, 'an entry without time to live is gone');
      return;
    }
    assert.fail('this machine pauses for seconds at a time: no round could show how long an entry lives');
  },

  async an_expired_entry_is_absent_for_load_and_swap_alike(harness) {
    const store = await harness.open();
    const loadedFirst = await write(store, 'loaded first', undefined, 'old', SHORT_MS);
    const swappedFirst = await write(store, 'swapped first', undefined, 'old', SHORT_MS);
    await write(store, 'created first', undefined, 'old', SHORT_MS);
    await outwait(harness, SHORT_MS);
    assert.equal((await store.load('loaded first')).entry, undefined, 'a load sees an expired entry');
    for (const [circuit, { version }] of [['loaded first', loadedFirst], ['swapped first', swappedFirst]]) {
      assert.equal((await lose(store, circuit, version)).entry, undefined, 'a conflict brings an expired entry');
      await write(store, circuit, undefined, 'new');
      assert.equal(text(present(await lose(store, circuit, version), 'it was created again').value), 'new');
    }
    const created = await write(store, 'created first', undefined, 'new');
    const read = present(await store.load('created first'), 'it was created again');
    assert.deepEqual(plain(read), plain({ value: bytes('new'), version: created.version }));
  },

  async a_write_sets_the_time_to_live_anew(harness) {
    const store = await harness.open();
    const changes = [
      ['longer', LIFE_MS, LONG_MS, true],
      ['none any more', LIFE_MS, undefined, true],
      ['shorter', LONG_MS, LIFE_MS, false],
      ['one at last', undefined, LIFE_MS, false],
    ];
    for (const [circuit, before, after] of changes) {
      // Whoever pauses between these two finds the first entry expired, and writes it anew: that is a write as well.
      const first = await write(store, circuit, undefined, 'first', before);
      const swapped = await store.swap(circuit, first.version, bytes('second'), after);
      if (!swapped.stored) {
        assert.equal(swapped.entry, undefined, `nobody else writes ${circuit}`);
        await write(store, circuit, undefined, 'second', after);
      }
    }
    await outwait(harness, LIFE_MS);
    for (const [circuit, , , isKept] of changes) {
      assert.equal((await store.load(circuit)).entry !== undefined, isKept, circuit);
    }
  },

  async a_lost_race_changes_no_time_to_live(harness) {
    const store = await harness.open();
    for (const [circuit, ttlMs] of [['longer', LONG_MS], ['none', undefined]]) {
      await write(store, circuit, undefined, 'mortal', LIFE_MS);
      const swapped = await store.swap(circuit, bytes('not its version!'), bytes('never stored'), ttlMs);
      assert.equal(swapped.stored, false);
    }
    await outwait(harness, LIFE_MS);
    for (const circuit of ['longer', 'none']) {
      assert.equal((await store.load(circuit)).entry, undefined, `a lost race with ${circuit} kept the entry alive`);
    }
  },

  async a_time_to_live_of_any_length_is_taken(harness) {
    const store = await harness.open();
    for (const [circuit, ttlMs] of [['nothing', 0], ['a nanosecond', 1e-6]]) await write(store, circuit, undefined, 'mortal', ttlMs);
    for (const [index, ttlMs] of [Infinity, 2 ** 64, Number.MAX_SAFE_INTEGER].entries()) {
      await write(store, `endless ${index}`, undefined, 'kept', ttlMs);
      assert.ok((await store.load(`endless ${index}`)).entry, `an entry that lives for ${ttlMs} ms is gone at once`);
    }
    await outwait(harness, 1);
    for (const circuit of ['nothing', 'a nanosecond']) {
      assert.equal((await store.load(circuit)).entry, undefined, `an entry outlived ${circuit}`);
    }
  },

  async a_told_time_goes_on_in_milliseconds(harness) {
    const WAIT_MS = 1_200;
    const store = await harness.open();
    const told = [];
    let expected;
    for (let round = 0; round < 2; round++) {
      told.push((await store.load('time')).nowMs);
      const receipt = await write(store, 'time', expected, 'tick');
      told.push(receipt.nowMs, (await lose(store, 'time', undefined)).nowMs);
      expected = receipt.version;
      if (round === 0) await harness.waitMs(WAIT_MS);
    }
    const times = told.filter((time) => time !== undefined);
    for (const [index, time] of times.entries()) {
      const stepMs = time - (times[index - 1] ?? time);
      assert.ok(stepMs >= 0 && stepMs <= 60_000, `the store's time went from ${times[index - 1]} to ${time}`);
    }
    if (times.length > 1) assert.ok(times.at(-1) - times[0] >= WAIT_MS / 6);
  },

  async hostile_names_are_opaque(harness) {
    const store = await harness.open();
    for (const [index, name] of hostileNames.entries()) {
      assert.equal((await store.load(name)).entry, undefined, `${JSON.stringify(name)} has an entry that another name wrote`);
      await write(store, name, undefined, `${index} ${name}`);
    }
    for (const [index, name] of hostileNames.entries()) {
      const entry = present(await store.load(name), 'its name wrote it');
      assert.equal(hex(entry.value), hex(bytes(`${index} ${name}`)), `${JSON.stringify(name)} has the entry of another name`);
      assert.deepEqual(plain(present(await lose(store, name, undefined), 'its name wrote it')), plain(entry));
      await write(store, name, entry.version, entry.value);
    }
  },

  async names_out_of_bounds_are_refused(harness) {
    const store = await harness.open();
    // Half of a pair is no text: as bytes it would be the name of another circuit.
    const names = ['', 'x'.repeat(NAME_MAX_BYTES + 1), `x${'🦀'.repeat(NAME_MAX_BYTES / 4)}`, 'a\ud800', '\udc00a', '\ud800\ud800'];
    for (const name of names) {
      await assert.rejects(store.load(name), { name: 'StoreError', kind: 'other' });
      await assert.rejects(store.swap(name, undefined, bytes('value'), undefined), { name: 'StoreError', kind: 'other' });
    }
  },

  async errors_are_typed(harness) {
    const store = await harness.openUnreachable();
    for (const ask of [() => store.load('circuit'), () => store.swap('circuit', undefined, bytes('value'), undefined)]) {
      await assert.rejects(ask(), (error) => {
        assert.ok(error instanceof StoreError && error.kind === 'unavailable', `it is unavailable, not: ${error}`);
        return error.message.trim() !== '';
      });
    }
  },

  async an_ambiguous_write_is_reported_as_unknown(harness) {
    const store = await harness.open();
    await loseAnswer(harness, 'created', undefined, 'new');
    const created = (await store.load('created')).entry;
    if (created) assert.equal(text(created.value), 'new', 'a swap whose answer was lost wrote something else');
    const old = await write(store, 'replaced', undefined, 'old');
    await loseAnswer(harness, 'replaced', old.version, 'new');
    const entry = present(await store.load('replaced'), 'it was there before');
    assert.ok(['old', 'new'].includes(text(entry.value)));
    assert.equal(hex(entry.version) === hex(old.version), text(entry.value) === 'old');
    // It loses like any other swap: what is there stays.
    await loseAnswer(harness, 'replaced', bytes('never written!!!'), 'lost race');
    assert.deepEqual(plain((await store.load('replaced')).entry), plain(entry), 'a swap on a wrong version wrote');
  },

  async an_ambiguous_write_is_not_repeated(harness) {
    const store = await harness.open();
    for (let round = 0; round < 3; round++) {
      const circuit = `round ${round}`;
      const lossy = await loseAnswer(harness, circuit, undefined, 'ambiguous');
      const seen = (await store.load(circuit)).entry;
      let last = await write(store, circuit, seen?.version, 'after');
      // The handle works again, and what it does now brings no second copy of what it did before.
      for (const value of ['1', '2']) {
        const brought = present(await loseOrReconnect(lossy, circuit), 'it was written after');
        assert.equal(hex(brought.version), hex(last.version), 'the ambiguous write was written a second time');
        last = await write(lossy, circuit, brought.version, value);
        const entry = present(await store.load(circuit), 'it was written after');
        assert.deepEqual(plain(entry), plain({ value: bytes(value), version: last.version }));
      }
    }
  },

  async an_announcement_reaches_a_watcher_on_another_handle(harness) {
    const [one, other] = [await harness.open(), await harness.open()];
    const [here, there] = [await harness.watch(one), await harness.watch(other)];
    if (!here) return assert.equal(one.announce, undefined, 'a store that does not push announces nothing');
    const announced = [];
    for (const [announcer, circuit] of [[one, 'a'], [other, 'b'], [one, 'a']]) {
      await hear(here, announced, announcer, circuit);
      await hear(there, announced, announcer, circuit);
    }
    await Promise.all([here.close(), there.close()]);
  },

  async a_watch_of_nothing_announced_yields_nothing(harness) {
    const [store, other] = [await harness.open(), await harness.open()];
    const watch = await harness.watch(store);
    if (!watch) return;
    for (const handle of [store, other]) await handle.load('read');
    const { version } = await write(store, 'written', undefined, '1');
    await write(other, 'written', version, '2');
    // Whatever came of it by now comes first.
    await hear(watch, [], store, 'announced');
    await watch.close();
  },

  async a_push_names_the_circuit_as_it_is(harness) {
    const [store, other] = [await harness.open(), await harness.open()];
    const watch = await harness.watch(store);
    if (!watch) return;
    const announced = [];
    for (const name of hostileNames) await hear(watch, announced, other, name);
    await watch.close();
  },

  async pushes_stay_among_those_who_share_entries(harness) {
    const [stranger, store] = [await harness.openApart(), await harness.open()];
    const [here, there] = [await harness.watch(store), await harness.watch(stranger)];
    if (!here) return;
    await stranger.announce('theirs');
    await hear(here, [], store, 'ours');
    await hear(there, [], stranger, 'theirs');
    await Promise.all([here.close(), there.close()]);
  },

  async a_dropped_watch_ends_alone(harness) {
    const store = await harness.open();
    const [dropped, kept] = [await harness.watch(store), await harness.watch(store)];
    if (!dropped) return;
    await dropped.close();
    await hear(kept, [], store, 'kept');
    await kept.close();
    await store.announce('nobody watches');
    const next = await harness.watch(store);
    await hear(next, ['nobody watches'], store, 'next');
    await next.close();
  },
};

/** Names that a protocol, a query language, a path or a template might take for something else, or that a store might fold or trim. */
const hostileNames = [
  'a', 'A', 'a ', ' a', ' ', '  ', '\t', '\n', '\r\n', '\0', 'a\0', 'a\0b', '\0a', '\u0001', '\u007f', '\ufeffa', '{}', '{a}', '{a}b',
  'a{', '}a', '{{}}', ':', '::', 'a:', ':a', 'a:b', '/', '//', 'a/', '/a', 'a/b', '*', 'a*', '?', '[a]', '[^a]', '\\', '\\*', '\\0',
  '.', '..', '../a', '../../etc/passwd', './a', 'C:\\a', '~', '~a', '$a', '${a}', '#a', '%', '%00', '%2F', '%2f', 'a+b', 'a&b=c', "'",
  '"', "''", "'; DROP TABLE a; --", '`a`', '<a>', 'a|b', 'a;b', 'a,b', '(a)', '@a', '!a', '^', '-', '--', '_', '0', '00', '-1', '1e3',
  'null', 'nil', 'None', 'undefined', 'true', '__proto__', 'constructor', 'version', 'value', 'EVAL return 1 0', '$3\r\nGET\r\n', 'é',
  'e\u0301', 'ß', 'ss', 'İ', 'i', 'ı', 'ﬁ', 'fi', '日本', '\u202ea', '🦀', '🦀🦀', '👩\u200d🚀', '👩🚀', '\u{10ffff}', '\ufffd',
  ...['x', '/', 'é', '🦀', '\0'].map((long) => long.repeat(NAME_MAX_BYTES / bytes(long).length)),
  'x'.repeat(NAME_MAX_BYTES - 1),
  `${'x'.repeat(NAME_MAX_BYTES - 1)}y`,
];
