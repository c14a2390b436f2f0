//! Who is connected: so many in all, and so many from one address, that nobody
//! takes the room of all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many connections one address may have: a machine has a few, and what
/// passes on the requests of many has no more at once.
pub const OF_ONE: usize = 1024;

/// All that are connected.
#[derive(Debug)]
pub struct Crowd {
    room: Arc<Semaphore>,
    of_one: usize,
    present: Mutex<HashMap<IpAddr, Present>>,
}

#[derive(Debug, Default)]
struct Present {
    connections: usize,
    /// Whether it was told that there are too many.
    told: bool,
}

/// Why nobody is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// This address has all that it may have, and this is news.
    News,
    /// It has, and it was told before.
    Known,
}

/// A connection's place, which is free again when this value goes.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    address: IpAddr,
    _room: OwnedSemaphorePermit,
}

impl Crowd {
    /// Room for `all`, of which one address has at most `of_one`.
    pub fn new(all: usize, of_one: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(all)),
            of_one,
            present: Mutex::default(),
        }
    }

    /// Room for one more, once there is some; until then nobody is let in, and
    /// the kernel keeps who knocks. None never comes: nobody closes the room.
    pub async fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    /// Lets one in who knocks.
    ///
    /// # Errors
    ///
    /// Where this address has all that it may have.
    pub fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        room: OwnedSemaphorePermit,
    ) -> Result<Place, Refused> {
        let mut present = self.present();
        let own = present.entry(address).or_default();
        if own.connections >= self.of_one {
            let told = std::mem::replace(&mut own.told, true);
            return Err(if told { Refused::Known } else { Refused::News });
        }
        own.connections += 1;
        Ok(Place {
            crowd: Arc::clone(self),
            address,
            _room: room,
        })
    }

    fn present(&self) -> MutexGuard<'_, HashMap<IpAddr, Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut present = self.crowd.present();
        if let Some(own) = present.get_mut(&self.address) {
            own.connections -= 1;
            if own.connections == 0 {
                present.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(crowd: &Crowd) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&crowd.room).try_acquire_owned().ok()
    }

    #[test]
    fn nobody_takes_the_room_of_all() {
        let crowd = Arc::new(Crowd::new(3, 2));
        let [one, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let enter = |address| crowd.enter(address, room(&crowd).unwrap());
        let first = enter(one).unwrap();
        let second = enter(one).unwrap();
        assert_eq!(enter(one).unwrap_err(), Refused::News);
        assert_eq!(enter(one).unwrap_err(), Refused::Known);
        let third = enter(other).unwrap();
        assert!(room(&crowd).is_none(), "all room is taken");
        drop(second);
        let second = enter(one).unwrap();
        drop((first, second));
        // Whoever was away is told anew.
        let (_first, _second) = (enter(one).unwrap(), enter(one).unwrap());
        drop(third);
        assert_eq!(enter(one).unwrap_err(), Refused::News);
        assert_eq!(crowd.present().len(), 1, "who is away is forgotten");
    }
}
