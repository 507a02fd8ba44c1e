//! Free TCP ports of the loopback interface.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Below the ranges from which systems pick the ports of outgoing connections. A port from that range could be taken
/// while a server restarts, even by a client that tries to reach it: such a connection ends up with itself.
const FIRST: u16 = 18_000;
const LAST: u16 = 31_999;
const ATTEMPTS_MAX: u32 = 1_000;

/// A TCP port that was free a moment ago on 127.0.0.1. Another process may take it before the caller does.
pub fn free_port() -> io::Result<u16> {
    let mut last_error = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS_MAX {
        let span = u64::from(LAST - FIRST) + 1;
        // Each `RandomState` has other keys, so an empty hash is a random number without a dependency.
        let offset = RandomState::new().hash_one(()) % span;
        let port = FIRST + u16::try_from(offset).unwrap_or(0);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

#[cfg(test)]
mod tests {
    // Goal: ports differ and can be bound. Method: hold several at once.
    use super::*;

    #[test]
    fn ports_can_be_held_side_by_side() {
        let held: Vec<TcpListener> = (0..16)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, free_port().unwrap())).unwrap())
            .collect();
        assert!(
            held.iter()
                .all(|one| (FIRST..=LAST).contains(&one.local_addr().unwrap().port()))
        );
    }
}
