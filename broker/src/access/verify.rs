//! Verifies passwords beside the async threads: a few at a time, a bounded number waiting, what was
//! right before remembered. A password costs some ten milliseconds and 19 MiB, so that neither many
//! clients at once nor an attacker may have as many as they like.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    thread::available_parallelism,
};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::password;

/// Verifications under way and waiting together: who had to wait for more would not be waited for.
const MAX_WAITING: usize = 64;
/// Those of one address, so that none fills the queue.
const MAX_OF_ADDRESS: usize = 16;
/// Passwords remembered, at least; at most twice as many.
const REMEMBERED: usize = 32_768;

/// Outcome of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    Wrong,
    /// Too many are waiting already.
    Busy,
}

/// Verifies passwords.
pub(crate) struct Verifier {
    /// Those under way and waiting.
    admitted: Arc<Semaphore>,
    /// Those under way.
    working: Arc<Semaphore>,
    /// How many of the admitted each address has.
    of_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    known: Mutex<Known>,
}

/// A place among those of an address; free again when dropped.
struct Place {
    of_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.of_address.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

impl Verifier {
    pub(crate) fn new() -> Result<Verifier, getrandom::Error> {
        // Half of the machine at most: the other half serves.
        let workers = available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4));
        Ok(Verifier {
            admitted: Arc::new(Semaphore::new(MAX_WAITING)),
            working: Arc::new(Semaphore::new(workers)),
            of_address: Arc::default(),
            known: Mutex::new(Known::new()?),
        })
    }

    /// Whether the password was right for this hash not long ago.
    pub(crate) fn knows(&self, hash: &str, password: &[u8]) -> bool {
        self.known.lock().has(hash, password)
    }

    fn place(&self, address: IpAddr) -> Option<Place> {
        let mut counts = self.of_address.lock();
        let count = counts.entry(address).or_default();
        if *count >= MAX_OF_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Place {
            of_address: self.of_address.clone(),
            address,
        })
    }

    /// Verifies for a client at `address`; `counts` is false for the stand-in of an unknown user, which
    /// is never right.
    pub(crate) async fn verify(
        &self,
        address: IpAddr,
        (hash, counts): (&str, bool),
        password: &[u8],
    ) -> Verdict {
        let Ok(admitted) = self.admitted.clone().try_acquire_owned() else {
            return Verdict::Busy;
        };
        let Some(place) = self.place(address) else {
            return Verdict::Busy;
        };
        let Ok(worker) = self.working.clone().acquire_owned().await else {
            return Verdict::Busy;
        };
        let work = {
            let (hash, password) = (hash.to_owned(), password.to_vec());
            tokio::task::spawn_blocking(move || {
                // Held until the work is done, even when nobody waits for it any more.
                let _held = (admitted, place, worker);
                password::verify(&hash, &password)
            })
        };
        match work.await {
            Ok(true) if counts => {
                self.known.lock().add(hash, password);
                Verdict::Right
            }
            Ok(_) => Verdict::Wrong,
            Err(_) => Verdict::Busy,
        }
    }

    /// Forgets what was right.
    pub(crate) fn forget(&self) {
        self.known.lock().clear();
    }
}

/// Passwords that were right, as digests under a key that only this process has: of no use to who
/// reads memory elsewhere, and nobody can choose a password by its digest, so that looking one up
/// gives nothing away by its time. The hash is part of a digest: a changed password is another one.
struct Known {
    key: [u8; 32],
    recent: HashSet<[u8; 32]>,
    older: HashSet<[u8; 32]>,
}

impl Known {
    fn new() -> Result<Known, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Known {
            key,
            recent: HashSet::new(),
            older: HashSet::new(),
        })
    }

    fn digest(&self, hash: &str, password: &[u8]) -> [u8; 32] {
        let digest = Sha256::new()
            .chain_update(self.key)
            .chain_update((hash.len() as u64).to_be_bytes())
            .chain_update(hash)
            .chain_update(password);
        digest.finalize().into()
    }

    fn has(&mut self, hash: &str, password: &[u8]) -> bool {
        let digest = self.digest(hash, password);
        if self.recent.contains(&digest) {
            return true;
        }
        let found = self.older.contains(&digest);
        if found {
            self.insert(digest);
        }
        found
    }

    fn add(&mut self, hash: &str, password: &[u8]) {
        self.insert(self.digest(hash, password));
    }

    fn insert(&mut self, digest: [u8; 32]) {
        if self.recent.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(digest);
    }

    fn clear(&mut self) {
        self.recent.clear();
        self.older.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_used_stays() {
        let mut known = Known::new().unwrap();
        known.add("hash", b"used");
        for n in 0..3 * REMEMBERED as u32 {
            known.add("hash", &n.to_be_bytes());
            assert!(known.recent.len() + known.older.len() <= 2 * REMEMBERED);
            if n % 1_000 == 0 {
                assert!(known.has("hash", b"used"), "{n}");
            }
        }
        assert!(!known.has("hash", &0u32.to_be_bytes()));
    }

    #[test]
    fn a_password_is_remembered_for_its_hash_only() {
        let mut known = Known::new().unwrap();
        known.add("hash", b"password");
        assert!(known.has("hash", b"password"));
        assert!(!known.has("has", b"hpassword") && !known.has("other", b"password"));
        known.clear();
        assert!(!known.has("hash", b"password"));
    }

    #[tokio::test]
    async fn only_right_passwords_are_remembered_and_a_stand_in_never() {
        let verifier = Verifier::new().unwrap();
        let hash = password::hash(b"right").unwrap();
        assert_eq!(
            verifier.verify(HERE, (&hash, true), b"wrong").await,
            Verdict::Wrong
        );
        assert_eq!(
            verifier.verify(HERE, (&hash, false), b"right").await,
            Verdict::Wrong
        );
        assert!(!verifier.knows(&hash, b"right") && !verifier.knows(&hash, b"wrong"));
        assert_eq!(
            verifier.verify(HERE, (&hash, true), b"right").await,
            Verdict::Right
        );
        assert!(verifier.knows(&hash, b"right"));
    }

    #[tokio::test]
    async fn who_comes_when_too_many_wait_is_told_so_at_once() {
        let verifier = Verifier::new().unwrap();
        let all = verifier
            .admitted
            .clone()
            .acquire_many_owned(MAX_WAITING as u32);
        let held = all.await.unwrap();
        assert_eq!(verifier.verify(HERE, ("", true), b"x").await, Verdict::Busy);
        drop(held);
        assert_eq!(
            verifier.verify(HERE, ("", true), b"x").await,
            Verdict::Wrong
        );
    }

    #[tokio::test]
    async fn no_address_fills_the_queue() {
        let verifier = Verifier::new().unwrap();
        let held: Vec<_> = (0..MAX_OF_ADDRESS).map(|_| verifier.place(HERE)).collect();
        let busy = verifier.verify(HERE, ("", true), b"x").await;
        assert_eq!(busy, Verdict::Busy);
        let other = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(
            verifier.verify(other, ("", true), b"x").await,
            Verdict::Wrong
        );
        drop(held);
        assert!(verifier.of_address.lock().is_empty());
    }
}
