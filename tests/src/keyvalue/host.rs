//! The interfaces of WASI that a component of the keyvalue adapter imports, and nothing else: whoever imports more is not
//! instantiated.

use std::collections::VecDeque;
use std::sync::Arc;

use wasmtime::component::{
    Component, ComponentNamedList, ComponentType, Instance, InstancePre, Lift, Linker, Lower, Resource,
    ResourceTable, ResourceType,
};
use wasmtime::{Engine, Result, Store, StoreContextMut};

use super::buckets::{Buckets, Error, Snapshot};

const STORE: &str = "wasi:keyvalue/store@0.2.0-draft2";
const ATOMICS: &str = "wasi:keyvalue/atomics@0.2.0-draft2";
const WALL_CLOCK: &str = "wasi:clocks/wall-clock@0.2.0";
const ENVIRONMENT: &str = "wasi:cli/environment@0.2.0";
const RANDOM: &str = "wasi:random/random@0.2.0";

/// What happens to a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It goes well.
    None,
    /// It is written if it may be, and its answer is lost; so many reads after it fail too.
    AnswerLost {
        /// How many.
        reads_fail: u32,
    },
    /// It is lost, and nobody knows; so many reads after it fail too.
    WriteLost {
        /// How many.
        reads_fail: u32,
    },
    /// It is written, and the answer says that another write came first.
    SaidToBeLost,
    /// It is not written, and the answer says that another write came first, which none did.
    Spurious,
    /// The access was taken away.
    Denied,
}

/// What an instance has of the host.
#[derive(Clone)]
pub struct World {
    /// The buckets that it shares with all others.
    pub buckets: Arc<dyn Buckets>,
    /// The time of `wasi:clocks`, in milliseconds since the Unix epoch.
    pub now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// What opening a bucket fails with.
    pub opening_fails: Option<Error>,
    /// What happens to the next swaps; after these they go well.
    pub faults: VecDeque<Fault>,
    /// So many of the next reads fail.
    pub reads_fail: u32,
    /// So many random bytes are given at most.
    pub random_bytes_at_most: u64,
    /// How many swaps were sent.
    pub swaps: u64,
}

impl World {
    /// One where nothing fails.
    pub fn new(buckets: Arc<dyn Buckets>, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            buckets,
            now_ms: Arc::new(now_ms),
            environment: Vec::new(),
            opening_fails: None,
            faults: VecDeque::new(),
            reads_fail: 0,
            random_bytes_at_most: u64::MAX,
            swaps: 0,
        }
    }

    fn read(&mut self, bucket: &str, key: &str) -> std::result::Result<Snapshot, Error> {
        if self.reads_fail > 0 {
            self.reads_fail -= 1;
            return Err(Error::Other("connection reset".into()));
        }
        self.buckets.read(bucket, key)
    }

    /// Whether `cas` is replaced by `value`.
    fn swap(&mut self, cas: &Cas, value: &[u8]) -> std::result::Result<bool, Error> {
        self.swaps += 1;
        let Some(seen) = &cas.seen else { return Err(Error::Other("`current` was not asked for".into())) };
        let write = || self.buckets.swap(&cas.bucket, &cas.key, seen, value);
        match self.faults.pop_front().unwrap_or(Fault::None) {
            Fault::None => write(),
            Fault::AnswerLost { reads_fail } => {
                write()?;
                self.reads_fail = reads_fail;
                Err(Error::Other("the answer is lost".into()))
            }
            Fault::WriteLost { reads_fail } => {
                self.reads_fail = reads_fail;
                Err(Error::Other("the write is lost".into()))
            }
            Fault::SaidToBeLost => write().map(|_| false),
            Fault::Spurious => Ok(false),
            Fault::Denied => Err(Error::AccessDenied),
        }
    }
}

/// The data of an instance.
struct Guest {
    world: World,
    table: ResourceTable,
}

struct Bucket(String);

/// A handle on a key's value.
struct Cas {
    bucket: String,
    key: String,
    /// As `current` read it.
    seen: Option<Snapshot>,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum CasError {
    #[component(name = "store-error")]
    StoreError(Error),
    #[component(name = "cas-failed")]
    CasFailed(Resource<Cas>),
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// A component that is ready to be instantiated, on any thread.
#[derive(Clone)]
pub struct Runnable(InstancePre<Guest>);

impl Runnable {
    /// Compiles `component`.
    ///
    /// # Errors
    /// Where it is no component, or imports what this host does not have.
    pub fn new(component: &[u8]) -> Result<Self> {
        let engine = Engine::default();
        Ok(Self(linker(&engine)?.instantiate_pre(&Component::new(&engine, component)?)?))
    }

    /// A new instance in `world`.
    ///
    /// # Errors
    /// Where it traps at once.
    pub fn start(&self, world: World) -> Result<Running> {
        let mut store = Store::new(self.0.engine(), Guest { world, table: ResourceTable::new() });
        let instance = self.0.instantiate(&mut store)?;
        Ok(Running { store, instance })
    }
}

/// An instance.
pub struct Running {
    store: Store<Guest>,
    instance: Instance,
}

impl Running {
    /// What it has of the host, also to change it.
    pub fn world(&mut self) -> &mut World {
        &mut self.store.data_mut().world
    }

    /// Calls a function that it exports.
    ///
    /// # Panics
    /// Where there is no such function, and where it traps: no input may make a trap. And where a handle is left behind.
    pub fn call<P, R>(&mut self, interface: &str, name: &str, parameters: P) -> R
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        let interface = self.instance.get_export_index(&mut self.store, None, interface);
        let function = self.instance.get_export_index(&mut self.store, interface.as_ref(), name);
        let function = function.unwrap_or_else(|| panic!("{name} is not exported"));
        let function = self.instance.get_typed_func::<P, R>(&mut self.store, function);
        let function = function.unwrap_or_else(|error| panic!("{name} has other types than wit/: {error:?}"));
        let answer = function.call(&mut self.store, parameters);
        let answer = answer.unwrap_or_else(|trap| panic!("{name} trapped: {trap:?}"));
        assert!(self.store.data().table.is_empty(), "{name} keeps a handle of the host");
        answer
    }
}

fn linker(engine: &Engine) -> Result<Linker<Guest>> {
    type Host<'store> = StoreContextMut<'store, Guest>;
    type Read = std::result::Result<Option<Vec<u8>>, Error>;
    let mut linker = Linker::<Guest>::new(engine);

    let mut store = linker.instance(STORE)?;
    store.resource("bucket", ResourceType::host::<Bucket>(), |mut host, bucket| {
        host.data_mut().table.delete(Resource::<Bucket>::new_own(bucket))?;
        Ok(())
    })?;
    store.func_wrap("open", |mut host: Host<'_>, (identifier,): (String,)| {
        let guest = host.data_mut();
        let opened = match guest.world.opening_fails.clone() {
            Some(error) => Err(error),
            None => Ok(guest.table.push(Bucket(identifier))?),
        };
        Ok((opened,))
    })?;
    store.func_wrap(
        "[method]bucket.get",
        |mut host: Host<'_>, (bucket, key): (Resource<Bucket>, String)| {
            let Guest { world, table } = host.data_mut();
            let read: Read = world.read(&table.get(&bucket)?.0, &key).map(|snapshot| snapshot.value);
            Ok((read,))
        },
    )?;

    let mut atomics = linker.instance(ATOMICS)?;
    atomics.resource("cas", ResourceType::host::<Cas>(), |mut host, cas| {
        host.data_mut().table.delete(Resource::<Cas>::new_own(cas))?;
        Ok(())
    })?;
    atomics.func_wrap(
        "[static]cas.new",
        |mut host: Host<'_>, (bucket, key): (Resource<Bucket>, String)| {
            let table = &mut host.data_mut().table;
            let cas = Cas { bucket: table.get(&bucket)?.0.clone(), key, seen: None };
            // A child of its bucket: a bucket that is dropped before its handles is a trap.
            Ok((std::result::Result::<_, Error>::Ok(table.push_child(cas, &bucket)?),))
        },
    )?;
    atomics.func_wrap("[method]cas.current", |mut host: Host<'_>, (cas,): (Resource<Cas>,)| {
        let Guest { world, table } = host.data_mut();
        let cas = table.get_mut(&cas)?;
        let read: Read = world.read(&cas.bucket, &cas.key).map(|snapshot| {
            cas.seen = Some(snapshot.clone());
            snapshot.value
        });
        Ok((read,))
    })?;
    atomics.func_wrap("swap", |mut host: Host<'_>, (cas, value): (Resource<Cas>, Vec<u8>)| {
        let Guest { world, table } = host.data_mut();
        let cas = table.delete(cas)?;
        let swapped = match world.swap(&cas, &value) {
            Ok(true) => Ok(()),
            Ok(false) => Err(CasError::CasFailed(table.push(Cas { seen: None, ..cas })?)),
            Err(error) => Err(CasError::StoreError(error)),
        };
        Ok((swapped,))
    })?;

    linker.instance(WALL_CLOCK)?.func_wrap("now", |host: Host<'_>, (): ()| {
        const MS_IN_S: u64 = 1_000;
        let now_ms = (host.data().world.now_ms)();
        let nanoseconds = u32::try_from(now_ms % MS_IN_S * 1_000_000).unwrap_or_default();
        Ok((Datetime { seconds: now_ms / MS_IN_S, nanoseconds },))
    })?;
    linker.instance(ENVIRONMENT)?.func_wrap("get-environment", |host: Host<'_>, (): ()| {
        Ok((host.data().world.environment.clone(),))
    })?;
    linker.instance(RANDOM)?.func_wrap("get-random-bytes", |host: Host<'_>, (length,): (u64,)| {
        let length = length.min(host.data().world.random_bytes_at_most);
        Ok(((0..length).map(|_| fastrand::u8(..)).collect::<Vec<u8>>(),))
    })?;
    Ok(linker)
}
