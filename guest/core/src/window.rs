//! [`Windows`]: which calls of a closed circuit its rules look at.
//!
//! A window is never a list of calls. The last calls are bits in a ring, the last milliseconds are buckets, and a decaying
//! window is three weights; so a record stays small whatever the load is. Equal windows of several rules are kept once.
//! They are one string of bytes in the record, without a description: the settings in force say what is where.
//!
//! | window | bytes |
//! |---|---|
//! | calls | the place of the next call (2), how many there are (2), a bit for each failure, a bit for each slow call |
//! | time | the newest bucket's number (8), and for each bucket its calls, failures and slow calls (4 each) |
//! | decaying | the newest step's number (8), the weight of the calls, the failures and the slow calls (8 each) |
//!
//! Numbers are little endian. A window that nothing was counted in is absent: no window was, or all are there.
//!
//! Time may go back: what comes late is counted as if it came with the newest call, unless it is further back than the
//! window is long; then the newest call was a clock's mistake, and the window begins anew.

use alloc::vec::Vec;

use crate::settings::{Settings, Window};

/// The most buckets of a window of time.
pub const BUCKETS_MAX: u64 = 20;
/// The steps in which a decaying window halves.
pub const STEPS_A_HALF_LIFE: u64 = 16;
/// The weight of a call that was just counted.
pub const WEIGHT: u64 = 1 << 16;

/// `2^32 * 2^(-i/16)`, rounded.
const DECAY: [u64; 16] = [
    4_294_967_296,
    4_112_874_773,
    3_938_502_376,
    3_771_522_796,
    3_611_622_603,
    3_458_501_653,
    3_311_872_529,
    3_171_459_999,
    3_037_000_500,
    2_908_241_642,
    2_784_941_738,
    2_666_869_345,
    2_553_802_834,
    2_445_529_972,
    2_341_847_524,
    2_242_560_872,
];

const RING_HEAD: usize = 4;
const BUCKET: usize = 12;
const STAMP: usize = 8;

/// What a window has in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Calls, or their weight in units of [`WEIGHT`].
    pub calls: u64,
    /// Of these the failures.
    pub failures: u64,
    /// Of these the slow ones.
    pub slow: u64,
}

/// One or several equal calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// How many.
    pub count: u32,
    /// Whether they failed.
    pub failed: bool,
    /// Whether they were slow.
    pub slow: bool,
}

impl Window {
    /// The length of a bucket and their number.
    fn buckets(length_ms: u64) -> (u64, u64) {
        let bucket_ms = length_ms.div_ceil(BUCKETS_MAX).max(1);
        (bucket_ms, length_ms.div_ceil(bucket_ms).max(1))
    }

    fn size(self) -> usize {
        match self {
            Self::Calls(calls) => RING_HEAD.saturating_add(plane(calls).saturating_mul(2)),
            Self::Time(length_ms) => {
                let (_, buckets) = Self::buckets(length_ms);
                STAMP.saturating_add(BUCKET.saturating_mul(usize::try_from(buckets).unwrap_or(usize::MAX)))
            }
            Self::Decaying(_) => STAMP.saturating_mul(4),
        }
    }

    /// What one call is worth in [`Sums`].
    pub fn unit(self) -> u64 {
        match self {
            Self::Calls(_) | Self::Time(_) => 1,
            Self::Decaying(_) => WEIGHT,
        }
    }

    /// When nothing is left of a call that was counted in this bucket or step; 0 where time does not matter.
    fn forgotten_at_ms(self, stamp: u64) -> u64 {
        match self {
            Self::Calls(_) => 0,
            Self::Time(length_ms) => {
                let (bucket_ms, buckets) = Self::buckets(length_ms);
                stamp.saturating_add(buckets).saturating_mul(bucket_ms)
            }
            // After so many halvings nothing is left of its weight.
            Self::Decaying(half_life_ms) => {
                let half_lives = stamp.checked_div(STEPS_A_HALF_LIFE).unwrap_or(0);
                half_lives.saturating_add(STEPS_A_HALF_LIFE).saturating_add(1).saturating_mul(half_life_ms)
            }
        }
    }

    /// The number of the bucket or step of a time.
    fn stamp(self, now_ms: u64) -> u64 {
        match self {
            Self::Calls(_) => 0,
            Self::Time(length_ms) => now_ms.checked_div(Self::buckets(length_ms).0).unwrap_or(0),
            Self::Decaying(half_life_ms) => {
                let half_lives = now_ms.checked_div(half_life_ms).unwrap_or(0);
                let rest_ms = now_ms.checked_rem(half_life_ms).unwrap_or(0);
                // A half-life of millions of years has no steps.
                let step =
                    rest_ms.checked_mul(STEPS_A_HALF_LIFE).and_then(|rest| rest.checked_div(half_life_ms));
                half_lives.saturating_mul(STEPS_A_HALF_LIFE).saturating_add(step.unwrap_or(0))
            }
        }
    }

    /// How many stamps it reaches over.
    fn reach(self) -> u64 {
        match self {
            Self::Calls(_) => 0,
            Self::Time(length_ms) => Self::buckets(length_ms).1,
            Self::Decaying(_) => STEPS_A_HALF_LIFE,
        }
    }
}

/// The bytes of one bit for each call.
fn plane(calls: u32) -> usize {
    usize::try_from(calls.div_ceil(8)).unwrap_or(usize::MAX)
}

/// The windows of the settings' rules, each once, in the order of the rules.
fn distinct(settings: &Settings) -> impl Iterator<Item = Window> {
    let rules = || settings.rules().iter().filter_map(|rule| rule.windowed().map(|rule| rule.window));
    rules()
        .enumerate()
        .filter(move |(index, window)| !rules().take(*index).any(|other| other == *window))
        .map(|(_, window)| window)
}

/// All windows of a circuit, as they are in its record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Windows {
    /// Empty, or the bytes of each distinct window.
    pub bytes: Vec<u8>,
}

impl Windows {
    /// The bytes that the windows of these settings take.
    pub fn size(settings: &Settings) -> usize {
        distinct(settings).map(Window::size).fold(0, usize::saturating_add)
    }

    /// Whether the bytes can be windows of these settings.
    pub fn fit(&self, settings: &Settings) -> bool {
        if self.bytes.is_empty() {
            return true;
        }
        let mut rest = self.bytes.as_slice();
        for window in distinct(settings) {
            let Some((own, after)) = rest.split_at_checked(window.size()) else { return false };
            if let Window::Calls(calls) = window
                && Ring::of(own, calls).is_none()
            {
                return false;
            }
            rest = after;
        }
        rest.is_empty()
    }

    /// Counts calls in every window.
    pub fn count(&mut self, settings: &Settings, counted: Counted, now_ms: u64) {
        let size = Self::size(settings);
        if size == 0 {
            return;
        }
        if self.bytes.len() != size {
            self.bytes.clear();
            self.bytes.resize(size, 0);
        }
        let mut rest = self.bytes.as_mut_slice();
        for window in distinct(settings) {
            let Some((own, after)) = rest.split_at_mut_checked(window.size()) else { return };
            match window {
                Window::Calls(calls) => count_in_ring(own, calls, counted),
                Window::Time(_) => count_in_buckets(own, window, counted, now_ms),
                Window::Decaying(_) => count_in_weights(own, window, counted, now_ms),
            }
            rest = after;
        }
    }

    /// Until when something in them matters: at least for their length from now on, and longer where the newest call was by a
    /// clock ahead.
    pub fn matter_until_ms(&self, settings: &Settings, now_ms: u64) -> u64 {
        let (mut rest, mut latest_ms) = (self.bytes.as_slice(), 0);
        for window in distinct(settings) {
            let Some((own, after)) = rest.split_at_checked(window.size()) else { break };
            let from_now_ms = match window {
                Window::Calls(_) => 0,
                Window::Time(length_ms) | Window::Decaying(length_ms) => now_ms.saturating_add(length_ms),
            };
            latest_ms = latest_ms.max(window.forgotten_at_ms(number_u64(own, 0))).max(from_now_ms);
            rest = after;
        }
        latest_ms
    }

    fn bytes_of(&self, settings: &Settings, wanted: Window) -> Option<&[u8]> {
        let mut rest = self.bytes.as_slice();
        for window in distinct(settings) {
            let (own, after) = rest.split_at_checked(window.size())?;
            if window == wanted {
                return Some(own);
            }
            rest = after;
        }
        None
    }

    /// What is in a window at a time.
    pub fn sums(&self, settings: &Settings, window: Window, now_ms: u64) -> Sums {
        let Some(bytes) = self.bytes_of(settings, window) else { return Sums::default() };
        match window {
            Window::Calls(calls) => Ring::of(bytes, calls).map(|ring| ring.sums()).unwrap_or_default(),
            Window::Time(_) => Buckets::at(bytes, window, now_ms).sums(),
            Window::Decaying(_) => weights_at(bytes, window, now_ms).1,
        }
    }

    /// The number of the first of `counted` calls with which `trips` holds of a window's sums; `trips` must go on to hold
    /// with every further call that is equal.
    pub fn first(
        &self,
        settings: &Settings,
        window: Window,
        counted: Counted,
        now_ms: u64,
        mut trips: impl FnMut(Sums) -> bool,
    ) -> Option<(u32, Sums)> {
        let sums = self.sums(settings, window, now_ms);
        if let Window::Calls(calls) = window {
            let bytes = self.bytes_of(settings, window);
            let ring = bytes.and_then(|bytes| Ring::of(bytes, calls)).unwrap_or(Ring::empty(calls));
            // Once the ring is full of them nothing changes any more.
            return ring.first(sums, counted, trips);
        }
        let with = |count: u32| {
            let weight = window.unit().saturating_mul(count.into());
            Sums {
                calls: sums.calls.saturating_add(weight),
                failures: sums.failures.saturating_add(if counted.failed { weight } else { 0 }),
                slow: sums.slow.saturating_add(if counted.slow { weight } else { 0 }),
            }
        };
        if !trips(with(counted.count)) {
            return None;
        }
        let (mut fails, mut holds) = (0_u32, counted.count);
        while holds.saturating_sub(fails) > 1 {
            let middle = fails.saturating_add(holds.saturating_sub(fails) / 2);
            if trips(with(middle)) {
                holds = middle;
            } else {
                fails = middle;
            }
        }
        Some((holds, with(holds)))
    }
}

fn number_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn number_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn put(bytes: &mut [u8], at: usize, number: &[u8]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|bytes| bytes.get_mut(..number.len())) {
        place.copy_from_slice(number);
    }
}

// ---- the last calls ----

/// The last calls, as bits.
#[derive(Clone, Copy, Debug)]
struct Ring<'a> {
    size: u32,
    /// Where the next call goes; once the ring is full that is the oldest one.
    next: u32,
    length: u32,
    failures: &'a [u8],
    slow: &'a [u8],
}

fn bit(plane: &[u8], index: u32) -> bool {
    let byte = usize::try_from(index / 8).ok().and_then(|byte| plane.get(byte));
    byte.is_some_and(|byte| byte & (1 << (index % 8)) != 0)
}

fn ones(plane: &[u8]) -> u64 {
    plane.iter().map(|byte| u64::from(byte.count_ones())).sum()
}

impl<'a> Ring<'a> {
    fn empty(size: u32) -> Self {
        Self { size, next: 0, length: 0, failures: &[], slow: &[] }
    }

    fn of(bytes: &'a [u8], size: u32) -> Option<Self> {
        let (next, length) = (number_u16(bytes, 0)?.into(), number_u16(bytes, 2)?.into());
        if next >= size || length > size || (length < size && next != length) {
            return None;
        }
        let (failures, slow) = bytes.get(RING_HEAD..)?.split_at_checked(plane(size))?;
        Some(Self { size, next, length, failures, slow })
    }

    fn sums(&self) -> Sums {
        Sums { calls: self.length.into(), failures: ones(self.failures), slow: ones(self.slow) }
    }

    fn first(
        &self,
        mut sums: Sums,
        counted: Counted,
        mut trips: impl FnMut(Sums) -> bool,
    ) -> Option<(u32, Sums)> {
        let (mut next, mut length) = (self.next, self.length);
        for number in 1..=counted.count.min(self.size) {
            if length == self.size {
                sums.failures = sums.failures.saturating_sub(bit(self.failures, next).into());
                sums.slow = sums.slow.saturating_sub(bit(self.slow, next).into());
            } else {
                length = length.saturating_add(1);
            }
            sums.calls = length.into();
            sums.failures = sums.failures.saturating_add(counted.failed.into());
            sums.slow = sums.slow.saturating_add(counted.slow.into());
            if trips(sums) {
                return Some((number, sums));
            }
            next = following(next, self.size);
        }
        None
    }
}

fn following(place: u32, size: u32) -> u32 {
    let next = place.saturating_add(1);
    if next >= size { 0 } else { next }
}

fn set_bit(plane: &mut [u8], index: u32, value: bool) {
    if let Some(byte) = usize::try_from(index / 8).ok().and_then(|byte| plane.get_mut(byte)) {
        let mask = 1 << (index % 8);
        *byte = if value { *byte | mask } else { *byte & !mask };
    }
}

fn count_in_ring(bytes: &mut [u8], size: u32, counted: Counted) {
    let Some(Ring { mut next, mut length, .. }) = Ring::of(bytes, size) else { return };
    let Some((head, planes)) = bytes.split_at_mut_checked(RING_HEAD) else { return };
    let Some((failures, slow)) = planes.split_at_mut_checked(plane(size)) else { return };
    for _ in 0..counted.count.min(size) {
        set_bit(failures, next, counted.failed);
        set_bit(slow, next, counted.slow);
        next = following(next, size);
        length = length.saturating_add(1).min(size);
    }
    put(head, 0, &u16::try_from(next).unwrap_or(0).to_le_bytes());
    put(head, 2, &u16::try_from(length).unwrap_or(0).to_le_bytes());
}

// ---- the last milliseconds ----

/// Where a call of now is counted, and what is still in the window then.
fn turned(window: Window, newest: u64, now_ms: u64) -> (u64, u64) {
    let now = window.stamp(now_ms);
    if now >= newest {
        return (now, now.saturating_sub(newest));
    }
    if newest.saturating_sub(now) >= window.reach() {
        // A clock was far ahead.
        return (now, u64::MAX);
    }
    (newest, 0)
}

/// The buckets of a window, at a time: `passed` of them are over since the newest.
struct Buckets<'a> {
    newest: u64,
    now: u64,
    passed: u64,
    buckets: u64,
    counts: &'a [u8],
}

fn bucket_of(stamp: u64, buckets: u64) -> usize {
    usize::try_from(stamp.checked_rem(buckets).unwrap_or(0)).unwrap_or(0).saturating_mul(BUCKET)
}

impl<'a> Buckets<'a> {
    fn at(bytes: &'a [u8], window: Window, now_ms: u64) -> Self {
        let newest = number_u64(bytes, 0);
        let (now, passed) = turned(window, newest, now_ms);
        Self { newest, now, passed, buckets: window.reach(), counts: bytes.get(STAMP..).unwrap_or_default() }
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        // The newest bucket is `passed` back, the next one a bucket further.
        for back in 0..self.buckets.saturating_sub(self.passed) {
            let Some(stamp) = self.newest.checked_sub(back) else { break };
            let at = bucket_of(stamp, self.buckets);
            let number = |offset: usize| {
                let place =
                    self.counts.get(at.saturating_add(offset)..).and_then(|bytes| bytes.first_chunk());
                place.map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
            };
            sums.calls = sums.calls.saturating_add(number(0));
            sums.failures = sums.failures.saturating_add(number(4));
            sums.slow = sums.slow.saturating_add(number(8));
        }
        sums
    }
}

fn count_in_buckets(bytes: &mut [u8], window: Window, counted: Counted, now_ms: u64) {
    let Buckets { now, passed, buckets, newest, .. } = Buckets::at(bytes, window, now_ms);
    put(bytes, 0, &now.to_le_bytes());
    let Some(counts) = bytes.get_mut(STAMP..) else { return };
    if passed >= buckets {
        counts.fill(0);
    } else {
        for ahead in 1..=passed {
            put(counts, bucket_of(newest.saturating_add(ahead), buckets), &[0; BUCKET]);
        }
    }
    let at = bucket_of(now, buckets);
    let parts = [(0, true), (4, counted.failed), (8, counted.slow)];
    for (offset, _) in parts.into_iter().filter(|(_, counts)| *counts) {
        let at = at.saturating_add(offset);
        let before = counts
            .get(at..)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |bytes| u32::from_le_bytes(*bytes));
        put(counts, at, &before.saturating_add(counted.count).to_le_bytes());
    }
}

// ---- all calls, the older the less ----

fn decayed(weight: u64, steps: u64) -> u64 {
    let halvings = steps / STEPS_A_HALF_LIFE;
    let Some(halvings) = u32::try_from(halvings).ok().filter(|halvings| *halvings < 64) else { return 0 };
    let part = usize::try_from(steps % STEPS_A_HALF_LIFE).ok().and_then(|part| DECAY.get(part));
    let whole = u128::from(weight).saturating_mul(u128::from(*part.unwrap_or(&0))) >> 32;
    u64::try_from(whole).unwrap_or(u64::MAX) >> halvings
}

/// The step in which a call of now is counted, and the weights then.
fn weights_at(bytes: &[u8], window: Window, now_ms: u64) -> (u64, Sums) {
    let (now, passed) = turned(window, number_u64(bytes, 0), now_ms);
    let weight = |at| decayed(number_u64(bytes, at), passed);
    (now, Sums { calls: weight(8), failures: weight(16), slow: weight(24) })
}

fn count_in_weights(bytes: &mut [u8], window: Window, counted: Counted, now_ms: u64) {
    let (now, sums) = weights_at(bytes, window, now_ms);
    let added = WEIGHT.saturating_mul(counted.count.into());
    let with = |sum: u64, counts: bool| sum.saturating_add(if counts { added } else { 0 });
    put(bytes, 0, &now.to_le_bytes());
    put(bytes, 8, &with(sums.calls, true).to_le_bytes());
    put(bytes, 16, &with(sums.failures, counted.failed).to_le_bytes());
    put(bytes, 24, &with(sums.slow, counted.slow).to_le_bytes());
}
