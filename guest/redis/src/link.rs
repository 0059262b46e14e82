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
        let mut trouble = Trouble::NoConnection(format!("the name {:?} has no address", self.host));
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            match connect_to(&network, address, self.port, deadline_ns) {
                Ok(connection) => return Ok(connection),
                Err(error) => trouble = error,
            }
        }
        Err(trouble)
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
        let answer = connection
            .send(message, deadline_ns)
            .and_then(|()| connection.receive(count, deadline_ns))
            .map_err(Trouble::NoAnswer);
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
    fn send(&self, mut message: &[u8], deadline_ns: u64) -> Result<(), String> {
        while !message.is_empty() {
            let permit = usize::try_from(self.output.check_write().map_err(lost)?).unwrap_or(usize::MAX);
            if permit == 0 {
                wait_for(&self.output.subscribe(), deadline_ns)?;
                continue;
            }
            let (part, rest) = message.split_at_checked(permit).unwrap_or((message, &[]));
            self.output.write(part).map_err(lost)?;
            message = rest;
        }
        self.output.flush().map_err(lost)
    }

    fn receive(&self, count: usize, deadline_ns: u64) -> Result<Vec<Reply>, String> {
        let (mut replies, mut bytes) = (Vec::with_capacity(count), Vec::new());
        let mut read = 0_usize;
        loop {
            while replies.len() < count {
                match resp::read(bytes.get(read..).unwrap_or_default()) {
                    Ok(Some((reply, size))) => {
                        replies.push(reply);
                        read = read.saturating_add(size);
                    }
                    Ok(None) => break,
                    Err(resp::Malformed(what)) => {
                        return Err(format!("the answer is not one of Redis: {what}"));
                    }
                }
            }
            if replies.len() == count {
                if read < bytes.len() {
                    return Err("there were more answers than questions".to_owned());
                }
                return Ok(replies);
            }
            if bytes.len() > REPLY_BYTES_MAX {
                return Err("the answer is larger than any of ours".to_owned());
            }
            let part = self.input.read(READ_MAX).map_err(lost)?;
            if part.is_empty() {
                wait_for(&self.input.subscribe(), deadline_ns)?;
            }
            bytes.extend_from_slice(&part);
        }
    }
}

fn lost(error: StreamError) -> String {
    match error {
        StreamError::Closed => "the server closed the connection".to_owned(),
        StreamError::LastOperationFailed(error) => format!("the connection failed: {error}"),
    }
}

/// Waits until `pollable` is ready, at most until the deadline.
fn wait_for(pollable: &Pollable, deadline_ns: u64) -> Result<(), String> {
    let timer = monotonic_clock::subscribe_instant(deadline_ns);
    if poll(&[pollable, &timer]).contains(&0) {
        Ok(())
    } else {
        Err("there was no answer in time".to_owned())
    }
}

fn resolve(network: &Network, host: &str, deadline_ns: u64) -> Result<Vec<IpAddr>, Trouble> {
    let failed = |code: ErrorCode| {
        match code {
        ErrorCode::AccessDenied => Trouble::NoAccess(
            "the runtime does not allow look-ups of names (wasmtime: -S allow-ip-name-lookup); give the IP address of \
             the server, or allow them"
                .to_owned(),
        ),
        code => Trouble::NoConnection(format!("look-up of the name {host:?}: {}", code.message())),
    }
    };
    let names = resolve_addresses(network, host).map_err(failed)?;
    let mut addresses = Vec::new();
    while addresses.len() < ADDRESSES_MAX {
        match names.resolve_next_address() {
            Ok(Some(IpAddress::Ipv4((a, b, c, d)))) => addresses.push(IpAddr::from([a, b, c, d])),
            Ok(Some(IpAddress::Ipv6((a, b, c, d, e, f, g, h)))) => {
                addresses.push(IpAddr::from([a, b, c, d, e, f, g, h]));
            }
            Ok(None) => break,
            Err(ErrorCode::WouldBlock) => {
                wait_for(&names.subscribe(), deadline_ns).map_err(Trouble::NoConnection)?
            }
            Err(code) => return Err(failed(code)),
        }
    }
    Ok(addresses)
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
