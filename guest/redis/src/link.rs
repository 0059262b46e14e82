//! [`Socket`]: the [`Link`] over `wasi:sockets`. Every wait ends at the deadline of its operation.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use wasip2::clocks::monotonic_clock;
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::random::random::get_random_bytes;
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, Network,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

use crate::resp::{self, REPLY_BYTES_MAX, Reply};
use crate::store::{Link, Trouble};

const READ_MAX: u64 = 64 * 1024;
/// Names may have more addresses than there is time for.
const ADDRESSES_MAX: usize = 8;

/// The server, and the connection to it while there is one.
pub(crate) struct Socket {
    host: String,
    port: u16,
    connection: Option<Connection>,
}

/// In the order in which its parts have to be dropped.
struct Connection {
    input: InputStream,
    output: OutputStream,
    _socket: TcpSocket,
}

impl Socket {
    pub(crate) fn new(host: String, port: u16) -> Self {
        Self { host, port, connection: None }
    }

    fn connect(&self, deadline_ns: u64) -> Result<Connection, Trouble> {
        let network = instance_network();
        let addresses = match self.host.parse::<IpAddr>() {
            Ok(address) => Vec::from([address]),
            Err(_) => resolve(&network, &self.host, deadline_ns)?,
        };
        let connect = |address, until_ns| connect_to(&network, address, self.port, until_ns);
        first_that_connects(&addresses, deadline_ns, monotonic_clock::now, connect)
            .unwrap_or_else(|| Err(Trouble::NoConnection(format!("the name {:?} has no address", self.host))))
    }
}

impl Link for Socket {
    fn now_ns(&mut self) -> u64 {
        monotonic_clock::now()
    }

    fn random(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (byte, random) in bytes.iter_mut().zip(get_random_bytes(16)) {
            *byte = random;
        }
        bytes
    }

    fn ready(&mut self, deadline_ns: u64) -> Result<bool, Trouble> {
        // Nothing is under way: whatever can be read now is the end, or no answer to us.
        if self.connection.as_ref().is_some_and(|kept| matches!(kept.input.read(1).as_deref(), Ok([]))) {
            return Ok(false);
        }
        self.connection = None;
        self.connection = Some(self.connect(deadline_ns)?);
        Ok(true)
    }

    fn ask(&mut self, message: &[u8], count: usize, deadline_ns: u64) -> Result<Vec<Reply>, Trouble> {
        let Some(connection) = &self.connection else {
            return Err(Trouble::NoConnection("it was closed".to_owned()));
        };
        let answer = match connection.send(message, deadline_ns) {
            Ok(()) => connection.receive(count, deadline_ns),
            // Whoever turns us away says why, and does not wait for what we send.
            Err(Trouble::NoAnswer(why)) => match connection.receive(count, deadline_ns) {
                Ok(replies) | Err(Trouble::Cut(replies, _)) => Err(Trouble::Cut(replies, why)),
                Err(_) => Err(Trouble::NoAnswer(why)),
            },
            Err(trouble) => Err(trouble),
        };
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    fn close(&mut self) {
        self.connection = None;
    }
}

impl Connection {
    fn send(&self, message: &[u8], deadline_ns: u64) -> Result<(), Trouble> {
        let mut rest = message;
        let trouble = |why, rest: &[u8]| {
            if rest.len() == message.len() { Trouble::NoConnection(why) } else { Trouble::NoAnswer(why) }
        };
        while !rest.is_empty() {
            in_time(deadline_ns).map_err(|why| trouble(why, rest))?;
            let permit = self.output.check_write().map_err(|error| trouble(lost(error), rest))?;
            let permit = usize::try_from(permit).unwrap_or(usize::MAX);
            if permit == 0 {
                wait_for(&self.output.subscribe(), deadline_ns).map_err(|why| trouble(why, rest))?;
                continue;
            }
            let (part, later) = rest.split_at_checked(permit).unwrap_or((rest, &[]));
            self.output.write(part).map_err(|error| Trouble::NoAnswer(lost(error)))?;
            rest = later;
        }
        self.output.flush().map_err(|error| Trouble::NoAnswer(lost(error)))
    }

    fn receive(&self, count: usize, deadline_ns: u64) -> Result<Vec<Reply>, Trouble> {
        let read = || {
            let part = self.input.read(READ_MAX).map_err(lost)?;
            if part.is_empty() {
                wait_for(&self.input.subscribe(), deadline_ns)?;
            }
            Ok(part)
        };
        Replies::of(count).all_from(|| in_time(deadline_ns), read)
    }
}

/// The replies to one message, as far as they have come.
struct Replies {
    count: usize,
    read: Vec<Reply>,
    /// What is no whole reply yet.
    rest: Vec<u8>,
    size: usize,
}

impl Replies {
    fn of(count: usize) -> Self {
        Self { count, read: Vec::with_capacity(count), rest: Vec::new(), size: 0 }
    }

    /// Reads until all of them are there, or it is late: also where there is always a part more.
    fn all_from(
        mut self,
        in_time: impl Fn() -> Result<(), String>,
        mut read: impl FnMut() -> Result<Vec<u8>, String>,
    ) -> Result<Vec<Reply>, Trouble> {
        loop {
            if let Some(whole) = self.whole()? {
                return Ok(whole);
            }
            match in_time().and_then(|()| read()) {
                Ok(part) => self.take(&part)?,
                Err(why) => return Err(self.cut(why)),
            }
        }
    }

    fn take(&mut self, part: &[u8]) -> Result<(), Trouble> {
        self.size = self.size.saturating_add(part.len());
        if self.size > REPLY_BYTES_MAX {
            return Err(Trouble::Malformed("it is larger than any of ours"));
        }
        self.rest.extend_from_slice(part);
        while self.read.len() < self.count {
            match resp::read(&self.rest) {
                Ok(Some((reply, size))) => {
                    self.read.push(reply);
                    self.rest.drain(..size.min(self.rest.len()));
                }
                Ok(None) => return Ok(()),
                Err(resp::Malformed(what)) => return Err(Trouble::Malformed(what)),
            }
        }
        Ok(())
    }

    /// All of them, once they are there.
    fn whole(&mut self) -> Result<Option<Vec<Reply>>, Trouble> {
        if self.read.len() < self.count {
            return Ok(None);
        }
        if !self.rest.is_empty() {
            return Err(Trouble::Malformed("there are more answers than questions"));
        }
        Ok(Some(core::mem::take(&mut self.read)))
    }

    /// No more come.
    fn cut(self, why: String) -> Trouble {
        if self.read.is_empty() { Trouble::NoAnswer(why) } else { Trouble::Cut(self.read, why) }
    }
}

fn lost(error: StreamError) -> String {
    match error {
        StreamError::Closed => "the server closed the connection".to_owned(),
        StreamError::LastOperationFailed(error) => format!("the connection failed: {error}"),
    }
}

fn late() -> String {
    "there was no answer in time".to_owned()
}

fn in_time(deadline_ns: u64) -> Result<(), String> {
    if monotonic_clock::now() < deadline_ns { Ok(()) } else { Err(late()) }
}

/// Waits until `pollable` is ready, at most until the deadline. After that nothing is, so that no loop around this goes on.
fn wait_for(pollable: &Pollable, deadline_ns: u64) -> Result<(), String> {
    in_time(deadline_ns)?;
    let timer = monotonic_clock::subscribe_instant(deadline_ns);
    if poll(&[pollable, &timer]).contains(&0) { Ok(()) } else { Err(late()) }
}

/// The first of `addresses` to which `connect` succeeds, or the last trouble; `None` where there is no address. Each has its
/// share of the time that is left, so that one that does not answer leaves some to the others.
fn first_that_connects<T>(
    addresses: &[IpAddr],
    deadline_ns: u64,
    now_ns: impl Fn() -> u64,
    mut connect: impl FnMut(IpAddr, u64) -> Result<T, Trouble>,
) -> Option<Result<T, Trouble>> {
    let mut last = None;
    let mut left = u64::try_from(addresses.len()).unwrap_or(u64::MAX);
    for address in addresses {
        let now_ns = now_ns();
        let share_ns = deadline_ns.saturating_sub(now_ns).checked_div(left).unwrap_or_default();
        left = left.saturating_sub(1);
        let outcome = connect(*address, now_ns.saturating_add(share_ns));
        if outcome.is_ok() {
            return Some(outcome);
        }
        last = Some(outcome);
    }
    last
}

fn resolve(network: &Network, host: &str, deadline_ns: u64) -> Result<Vec<IpAddr>, Trouble> {
    let names = resolve_addresses(network, host).map_err(|code| not_found(host, code))?;
    addresses_of(|| {
        loop {
            match names.resolve_next_address() {
                Err(ErrorCode::WouldBlock) => {
                    wait_for(&names.subscribe(), deadline_ns).map_err(Trouble::NoConnection)?;
                }
                next => return next.map_err(|code| not_found(host, code)),
            }
        }
    })
}

/// All that `next` gives. Trouble after the first of them is none: there is one to go to.
fn addresses_of(
    mut next: impl FnMut() -> Result<Option<IpAddress>, Trouble>,
) -> Result<Vec<IpAddr>, Trouble> {
    let mut addresses = Vec::new();
    while addresses.len() < ADDRESSES_MAX {
        match next() {
            Ok(Some(IpAddress::Ipv4((a, b, c, d)))) => addresses.push(IpAddr::from([a, b, c, d])),
            Ok(Some(IpAddress::Ipv6((a, b, c, d, e, f, g, h)))) => {
                addresses.push(IpAddr::from([a, b, c, d, e, f, g, h]));
            }
            Ok(None) => break,
            Err(trouble) if addresses.is_empty() => return Err(trouble),
            Err(_) => break,
        }
    }
    Ok(addresses)
}

/// What the code of a look-up that failed means.
fn not_found(host: &str, code: ErrorCode) -> Trouble {
    match code {
        // The second is what wasmtime says where look-ups are not allowed.
        ErrorCode::AccessDenied | ErrorCode::PermanentResolverFailure => Trouble::NoAccess(format!(
            "the name {host:?} cannot be looked up, as where the runtime does not allow look-ups (wasmtime: -S \
             allow-ip-name-lookup); allow them, or give the IP address of the server"
        )),
        ErrorCode::InvalidArgument => {
            Trouble::Misconfigured(format!("{host:?} in CIRCUITRY_REDIS_URL is no name of a host"))
        }
        code => Trouble::NoConnection(format!("look-up of the name {host:?}: {}", code.message())),
    }
}

fn connect_to(
    network: &Network,
    address: IpAddr,
    port: u16,
    deadline_ns: u64,
) -> Result<Connection, Trouble> {
    let failed = |code: ErrorCode| match code {
        ErrorCode::AccessDenied => Trouble::NoAccess(format!(
            "the runtime does not let this component connect to {address} (wasmtime: -S inherit-network, -S tcp)"
        )),
        code => Trouble::NoConnection(format!("{address}: {}", code.message())),
    };
    let (family, remote) = match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (a, b, c, d) }))
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h] = ip.segments();
            let address = (a, b, c, d, e, f, g, h);
            let remote = Ipv6SocketAddress { port, flow_info: 0, address, scope_id: 0 };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(remote))
        }
    };
    let socket = create_tcp_socket(family).map_err(failed)?;
    socket.start_connect(network, remote).map_err(failed)?;
    loop {
        match socket.finish_connect() {
            Ok((input, output)) => return Ok(Connection { input, output, _socket: socket }),
            Err(ErrorCode::WouldBlock) => {
                wait_for(&socket.subscribe(), deadline_ns).map_err(|_late| {
                    Trouble::NoConnection(format!("{address} did not take the connection in time"))
                })?;
            }
            Err(code) => return Err(failed(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    fn no_connection() -> Trouble {
        Trouble::NoConnection("refused".to_owned())
    }

    #[test]
    fn an_address_that_does_not_answer_leaves_the_others_their_share_of_the_time() {
        let clock = core::cell::Cell::new(1_000);
        let mut asked = Vec::new();
        let addresses = [address(1), address(2), address(3)];
        let outcome = first_that_connects(
            &addresses,
            4_000,
            || clock.get(),
            |address, until_ns| {
                asked.push((address, until_ns));
                if asked.len() < 3 {
                    clock.set(until_ns);
                    return Err(no_connection());
                }
                Ok("connected")
            },
        );
        assert_eq!(outcome, Some(Ok("connected")));
        assert_eq!(asked, [(address(1), 2_000), (address(2), 3_000), (address(3), 4_000)]);
    }

    #[test]
    fn what_an_address_does_not_use_of_its_time_is_the_others() {
        let mut until = Vec::new();
        let outcome = first_that_connects(
            &[address(1), address(2)],
            4_000,
            || 0,
            |_, until_ns| {
                until.push(until_ns);
                Err::<(), _>(no_connection())
            },
        );
        assert_eq!(outcome, Some(Err(no_connection())));
        assert_eq!(until, [2_000, 4_000]);
        let none = first_that_connects(&[], 4_000, || 0, |_, _| -> Result<(), _> { Err(no_connection()) });
        assert_eq!(none, None);
    }

    #[test]
    fn addresses_that_were_found_are_kept_when_the_look_up_of_the_others_fails() {
        let mut given = [Ok(Some(IpAddress::Ipv4((127, 0, 0, 1)))), Err(no_connection())].into_iter();
        assert_eq!(addresses_of(|| given.next().unwrap_or(Ok(None))), Ok(Vec::from([address(1)])));
        assert_eq!(addresses_of(|| Err(no_connection())), Err(no_connection()));
        assert_eq!(addresses_of(|| Ok(None)), Ok(Vec::new()));
    }

    #[test]
    fn a_look_up_that_is_not_allowed_is_told_from_one_that_finds_nothing_and_from_no_name() {
        for code in [ErrorCode::AccessDenied, ErrorCode::PermanentResolverFailure] {
            let trouble = not_found("redis", code);
            assert!(
                matches!(&trouble, Trouble::NoAccess(text) if text.contains("allow-ip-name-lookup")),
                "{trouble:?}"
            );
        }
        assert!(matches!(not_found("re dis", ErrorCode::InvalidArgument), Trouble::Misconfigured(_)));
        for code in [ErrorCode::NameUnresolvable, ErrorCode::TemporaryResolverFailure] {
            assert!(matches!(not_found("redis", code), Trouble::NoConnection(_)));
        }
    }

    #[test]
    fn replies_are_put_together_from_pieces_however_small() {
        let mut replies = Replies::of(2);
        for byte in b"+OK\r\n$2\r\nab\r\n" {
            assert_eq!(replies.whole(), Ok(None));
            assert_eq!(replies.take(&[*byte]), Ok(()));
        }
        let whole = Vec::from([Reply::Simple(b"OK".to_vec()), Reply::Bulk(b"ab".to_vec())]);
        assert_eq!(replies.whole(), Ok(Some(whole)));
    }

    #[test]
    fn a_server_that_always_has_a_byte_more_is_late_all_the_same() {
        let clock = core::cell::Cell::new(0);
        let in_time = || if clock.get() < 10 { Ok(()) } else { Err("late".to_owned()) };
        let read = || {
            clock.set(clock.get() + 1);
            Ok(b"+".to_vec())
        };
        assert_eq!(Replies::of(1).all_from(in_time, read), Err(Trouble::NoAnswer("late".to_owned())));
        assert_eq!(clock.get(), 10);
        // What is there by then is taken.
        let read = || {
            clock.set(10);
            Ok(b"+OK\r\n".to_vec())
        };
        clock.set(0);
        assert_eq!(Replies::of(1).all_from(in_time, read), Ok(Vec::from([Reply::Simple(b"OK".to_vec())])));
    }

    #[test]
    fn replies_that_came_before_the_end_are_handed_over() {
        let mut replies = Replies::of(3);
        assert_eq!(replies.take(b"+OK\r\n-ERR no\r\n+half"), Ok(()));
        let came = Vec::from([Reply::Simple(b"OK".to_vec()), Reply::Error(b"ERR no".to_vec())]);
        assert_eq!(replies.cut("closed".to_owned()), Trouble::Cut(came, "closed".to_owned()));
        assert_eq!(Replies::of(1).cut("closed".to_owned()), Trouble::NoAnswer("closed".to_owned()));
    }

    #[test]
    fn what_is_no_reply_or_too_much_is_malformed() {
        assert!(matches!(Replies::of(1).take(b"HTTP/1.1 400 Bad Request\r\n"), Err(Trouble::Malformed(_))));
        assert!(matches!(Replies::of(1).take(&[b'a'; REPLY_BYTES_MAX + 1]), Err(Trouble::Malformed(_))));
        let mut more = Replies::of(1);
        assert_eq!(more.take(b"+OK\r\n+OK\r\n"), Ok(()));
        assert!(matches!(more.whole(), Err(Trouble::Malformed(_))));
    }
}
