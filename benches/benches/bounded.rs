//! The bounded mode, where a call asks no store, beside circuit breakers that have none. All take turns in one run.

use circuitry::{Breaker, Context, Factory, Outcome, SettingsBuilder};
use circuitry_benches::circuits::{self, execute, factory, no_op, usual};
use circuitry_benches::peers::{self, call_failsafe, call_recloser, call_recloser_async, call_tower};
use circuitry_benches::servers::{redis_connection, redis_url, redis_version};
use circuitry_benches::threads::at_once;
use circuitry_benches::{Suite, Times, modes};
use circuitry_redis::RedisStore;
use criterion::Criterion;
use recloser::AsyncRecloser;
use tokio::runtime::{Handle, Runtime};

const ROUNDS: u64 = 100;
/// So many that threads meet on a circuit for longer than they take to begin.
const CALLS_A_ROUND: u64 = 50_000;
/// As many as the flushes of two cores leave room for: a thousand hot ones are 13,000 swaps a second.
const CIRCUITS: usize = 100;
/// Each thread begins at another circuit.
const APART: usize = CIRCUITS / 2;

/// The circuits of one store: `one`, and many.
struct Ours {
    factory: Factory,
    one: Breaker,
    many: Vec<Breaker>,
}

impl Ours {
    async fn new(settings: SettingsBuilder) -> Self {
        let factory = factory(settings).await;
        let one = circuits::own(&factory, "one");
        let many: Vec<_> =
            (0..CIRCUITS).map(|number| circuits::own(&factory, &format!("many {number}"))).collect();
        // The first call of a circuit asks the store.
        for breaker in many.iter().chain([&one]) {
            execute(breaker).await;
        }
        modes::flush(&factory).await;
        Self { factory, one, many }
    }
}

struct Measured {
    calls: u64,
    runtime: Handle,
}

impl Measured {
    /// A round of so many calls on each of `threads` threads.
    fn round(&self, times: &mut Times, threads: usize, call: impl AsyncFn() + Sync) {
        let call = &call;
        times.add(at_once(&self.runtime, threads, |_| async move {
            for _ in 0..self.calls {
                call().await;
            }
        }));
    }

    /// The same on many things in rotation, all in use: a call of each before is not in the time.
    fn round_of_many<T: Sync>(
        &self,
        times: &mut Times,
        threads: usize,
        many: &[T],
        call: impl AsyncFn(&T) + Sync,
    ) {
        let call = &call;
        self.runtime.block_on(async {
            for one in many {
                call(one).await;
            }
        });
        times.add(at_once(&self.runtime, threads, |number| async move {
            let mut rotation = many.iter().cycle().skip(number * APART);
            for _ in 0..self.calls {
                call(rotation.next().expect("no end")).await;
            }
        }));
    }

    fn round_of_tower(&self, times: &mut Times, threads: usize, service: &(impl TowerService + Sync)) {
        times.add(at_once(&self.runtime, threads, |_| {
            let mut service = service.clone();
            async move {
                for _ in 0..self.calls {
                    call_tower(&mut service).await;
                }
            }
        }));
    }
}

async fn start_and_end(breaker: &Breaker) {
    let permit = breaker.start().await.expect("a permit");
    permit.end(Outcome::Success).await.expect("settled");
}

trait TowerService: tower::Service<(), Response = (), Error: std::fmt::Debug> + Clone {}
impl<S: tower::Service<(), Response = (), Error: std::fmt::Debug> + Clone> TowerService for S {}

/// One thing, on one and on two threads.
fn pair(names: [&'static str; 2], calls: u64) -> [Times; 2] {
    names.map(|name| Times::of_many(name, calls))
}

fn turns(suite: &mut Suite, runtime: &Handle, memory: Option<&Ours>, redis: Option<&Ours>) {
    let calls = if suite.is_trial() { 100 } else { CALLS_A_ROUND };
    let measured = Measured { calls, runtime: runtime.clone() };
    let on_memory = pair(["bounded/memory 1", "bounded/memory 2"], calls);
    let on_memory_many = pair(["bounded/memory 1 of many", "bounded/memory 2 of many"], calls);
    let on_redis = pair(["bounded/redis 1", "bounded/redis 2"], calls);
    let on_redis_many = pair(["bounded/redis 1 of many", "bounded/redis 2 of many"], calls);
    let mut ours = [(memory, on_memory, on_memory_many), (redis, on_redis, on_redis_many)];

    let recloser = peers::recloser_async();
    let reclosers: Vec<AsyncRecloser> = (0..CIRCUITS).map(|_| peers::recloser_async()).collect();
    let (recloser_sync, failsafe, tower) = (peers::recloser(), peers::failsafe(), peers::tower());
    let mut on_recloser = pair(["bounded/recloser 1", "bounded/recloser 2"], calls);
    let mut on_reclosers = pair(["bounded/recloser 1 of many", "bounded/recloser 2 of many"], calls);
    let mut on_recloser_sync = pair(["bounded/recloser sync 1", "bounded/recloser sync 2"], calls);
    let mut on_failsafe = pair(["bounded/failsafe 1", "bounded/failsafe 2"], calls);
    let mut on_tower = pair(["bounded/tower 1", "bounded/tower 2"], calls);
    let mut on_nothing = pair(["bounded/nothing 1", "bounded/nothing 2"], calls);
    let mut by_hand = pair(["bounded/by hand 1", "bounded/by hand 2"], calls);
    let mut lookup = pair(["bounded/lookup 1", "bounded/lookup 2"], calls);
    let mut lookups = pair(["bounded/lookup 1 of many", "bounded/lookup 2 of many"], calls);
    let tenants: Vec<_> = (0..CIRCUITS).map(|number| Context::tenant(format!("{number}"))).collect();

    for _ in 0..suite.times(ROUNDS) {
        for index in 0..2 {
            let threads = index + 1;
            for (ours, one, many) in &mut ours {
                let Some(ours) = ours else { continue };
                measured.round(&mut one[index], threads, async || execute(&ours.one).await);
                measured.round_of_many(&mut many[index], threads, &ours.many, async |breaker| {
                    execute(breaker).await;
                });
            }
            if let Some(ours) = memory {
                measured.round(&mut by_hand[index], threads, async || start_and_end(&ours.one).await);
                let look_up = async |tenant: &Context| drop(ours.factory.breaker_for("jobs", tenant));
                measured.round(&mut lookup[index], threads, async || look_up(&tenants[0]).await);
                measured.round_of_many(&mut lookups[index], threads, &tenants, look_up);
            }
            measured.round(&mut on_recloser[index], threads, async || call_recloser_async(&recloser).await);
            measured.round_of_many(&mut on_reclosers[index], threads, &reclosers, async |recloser| {
                call_recloser_async(recloser).await;
            });
            measured.round(&mut on_recloser_sync[index], threads, async || call_recloser(&recloser_sync));
            measured.round(&mut on_failsafe[index], threads, async || call_failsafe(&failsafe).await);
            measured.round_of_tower(&mut on_tower[index], threads, &tower);
            measured.round(&mut on_nothing[index], threads, async || {
                std::hint::black_box(no_op().await).expect("nothing fails");
            });
        }
    }

    for times in [&on_recloser, &on_reclosers, &on_recloser_sync, &on_failsafe, &on_tower, &on_nothing] {
        record(suite, times);
    }
    let own = ours.iter().flat_map(|(ours, one, many)| [(*ours, one), (*ours, many)]);
    for (ours, times) in own.chain([&by_hand, &lookup, &lookups].map(|times| (memory, times))) {
        match ours {
            Some(_) => record(suite, times),
            None => times.iter().for_each(|times| suite.leave_out(times.name(), NO_MODE)),
        }
    }
    let ratios = ["bounded/one thread, against recloser", "bounded/two threads, against recloser"];
    for (index, id) in ratios.into_iter().enumerate() {
        match &ours {
            [(Some(_), one, _), _] => {
                suite.record(id, one[index].ratio(&on_recloser[index]), one[index].rounds() as u64);
            }
            _ => suite.leave_out(id, NO_MODE),
        }
    }
}

const NO_MODE: &str = "this build has no bounded mode";

fn record(suite: &mut Suite, times: &[Times]) {
    for times in times {
        suite.record_times(times.name(), times);
    }
}

fn criterion_figures(criterion: &mut Criterion, runtime: &Runtime, ours: &[(&str, Option<&Ours>)]) {
    let mut group = criterion.benchmark_group("a call that asks no store, closed, one thread");
    for (name, ours) in ours {
        let Some(ours) = ours else { continue };
        group.bench_function(format!("execute, bounded, {name}"), |bencher| {
            bencher.to_async(runtime).iter(|| execute(&ours.one));
        });
    }
    let (recloser, recloser_sync) = (peers::recloser_async(), peers::recloser());
    group.bench_function("recloser, async", |bencher| {
        bencher.to_async(runtime).iter(|| call_recloser_async(&recloser));
    });
    group.bench_function("recloser", |bencher| bencher.iter(|| call_recloser(&recloser_sync)));
    let failsafe = peers::failsafe();
    group.bench_function("failsafe", |bencher| {
        bencher.to_async(runtime).iter(|| call_failsafe(&failsafe));
    });
    let tower = peers::tower();
    group.bench_function("tower-resilience-circuitbreaker", |bencher| {
        bencher.to_async(runtime).iter_custom(|calls| {
            let mut tower = tower.clone();
            async move {
                let begun = std::time::Instant::now();
                for _ in 0..calls {
                    call_tower(&mut tower).await;
                }
                begun.elapsed()
            }
        });
    });
    group.finish();
}

async fn on_redis() -> Option<Ours> {
    let settings = modes::bounded(usual())?;
    let store = RedisStore::connect(&redis_url()).await.expect("a Redis");
    Some(Ours::new(settings.store(store)).await)
}

fn main() {
    let mut suite = Suite::begin("bounded");
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Runtime::new().expect("a runtime");
    let memory = modes::bounded(usual()).map(|settings| runtime.block_on(Ours::new(settings)));
    let redis = runtime.block_on(on_redis());
    let version = runtime.block_on(async { redis_version(&mut redis_connection().await).await });
    suite.on("Redis", version);
    criterion_figures(&mut criterion, &runtime, &[("memory", memory.as_ref()), ("Redis", redis.as_ref())]);
    turns(&mut suite, runtime.handle(), memory.as_ref(), redis.as_ref());
    suite.finish();
    criterion.final_summary();
}
