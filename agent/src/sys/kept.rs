//! Clients that are kept from one look to the next.
//!
//! A look at the API server costs little; the TLS handshake before it, and the
//! certificates that have to be read, judged and signed for it, cost a hundred
//! times as much. So a client is kept for as long as all that it was made from
//! is the same, and its connection serves all steps that have its identity.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::error::Result;

/// What a client was made from, without holding it: there are keys in it.
pub type Origin = [u8; 32];

/// The digest of all parts, told apart.
pub fn origin<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Origin {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// A client that knows whether it is worth keeping.
pub trait Client: Clone {
    /// Whether its last request got no answer: the next one had better have a
    /// connection, and an idea of the network, of its own.
    fn is_lost(&self) -> bool;
}

/// Clients by whom they speak for.
#[derive(Debug)]
pub struct Kept<C>(Mutex<BTreeMap<&'static str, One<C>>>);

#[derive(Debug)]
struct One<C> {
    client: C,
    origin: Origin,
    until: Instant,
}

impl<C> Default for Kept<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C: Client> Kept<C> {
    /// The client of `who`: the one that is kept, or one that is made now
    /// because there is none, its origin has changed, its time is over or its
    /// connection was lost. `make` also says how long it may be kept.
    ///
    /// # Errors
    ///
    /// That of `make`.
    pub fn get(
        &self,
        who: &'static str,
        origin: Origin,
        make: impl FnOnce() -> Result<(C, Duration)>,
    ) -> Result<C> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = all.get(who)
            && one.origin == origin
            && Instant::now() < one.until
            && !one.client.is_lost()
        {
            return Ok(one.client.clone());
        }
        all.remove(who);
        let (client, time) = make()?;
        let one = One {
            client: client.clone(),
            origin,
            until: Instant::now() + time,
        };
        all.insert(who, one);
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error};
    use std::cell::Cell;
    use std::rc::Rc;

    #[derive(Debug, Clone)]
    struct Fake {
        number: u32,
        lost: Rc<Cell<bool>>,
    }

    impl Client for Fake {
        fn is_lost(&self) -> bool {
            self.lost.get()
        }
    }

    #[test]
    fn a_client_is_kept_until_something_is_another() {
        let (kept, made) = (Kept::default(), Cell::new(0));
        let get = |who, parts: &[&[u8]], time| {
            let client = kept.get(who, origin(parts.iter().copied()), || {
                made.set(made.get() + 1);
                let (number, lost) = (made.get(), Rc::default());
                Ok((Fake { number, lost }, time))
            });
            client.unwrap()
        };
        const LONG: Duration = Duration::from_secs(600);
        assert_eq!(get("a", &[b"x", b"y"], LONG).number, 1);
        assert_eq!(get("a", &[b"x", b"y"], LONG).number, 1);
        assert_eq!(get("b", &[b"x", b"y"], LONG).number, 2, "another's");
        assert_eq!(get("a", &[b"xy", b""], LONG).number, 3, "another origin");
        let third = get("a", &[b"xy", b""], LONG);
        third.lost.set(true);
        assert_eq!(get("a", &[b"xy", b""], Duration::ZERO).number, 4, "lost");
        assert_eq!(get("a", &[b"xy", b""], LONG).number, 5, "over");
    }

    #[test]
    fn what_cannot_be_made_is_not_kept() {
        let kept: Kept<Fake> = Kept::default();
        let refused = || Err(Error::new(Code::Tls, "no certificate"));
        assert!(kept.get("a", origin([]), refused).is_err());
        let (number, lost) = (7, Rc::default());
        let made = || Ok((Fake { number, lost }, Duration::MAX / 4));
        assert_eq!(kept.get("a", origin([]), made).unwrap().number, 7);
    }
}
