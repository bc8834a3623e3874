//! What sessions hold of messages, and who may hold more when all of them together hold much.
//!
//! The budget is shared by need, so that nothing is set aside for who needs nothing. Once most of it is
//! used a session gets no more than an equal share, which is the budget divided by those who hold
//! anything and one more; and once all of it is used, who has less than that share gets it at the cost
//! of those who have more. So nobody who holds no more than a share is ever cut, whatever others do.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Bytes of messages that all sessions together hold: waiting, or sent and not yet settled. A message
/// counts once for each session that has it.
#[derive(Debug)]
pub(crate) struct Load {
    budget: usize,
    bytes: AtomicUsize,
    /// Accounts that hold something.
    holders: AtomicUsize,
}

/// Why a session cannot take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// It holds its share already.
    OverShare,
    /// Others hold what it could have.
    Full,
}

impl Load {
    pub(crate) fn new(budget: usize) -> Load {
        Load {
            budget,
            bytes: AtomicUsize::new(0),
            holders: AtomicUsize::new(0),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Whether more is held than there should be.
    pub(crate) fn is_over(&self) -> bool {
        self.bytes() > self.budget
    }

    /// Whether so much is left that nobody has to look at the others.
    pub(crate) fn is_roomy(&self) -> bool {
        self.fits(0)
    }

    fn fits(&self, bytes: usize) -> bool {
        self.bytes().saturating_add(bytes) <= self.budget - self.budget / 8
    }

    /// What a session may hold when there is not enough for all: there is room for one more then.
    pub(crate) fn share(&self) -> usize {
        self.budget / (self.holders.load(Relaxed) + 1)
    }
}

/// What one session holds of a load.
#[derive(Debug)]
pub(crate) struct Account {
    load: Arc<Load>,
    bytes: AtomicUsize,
}

impl Account {
    pub(crate) fn new(load: &Arc<Load>) -> Arc<Account> {
        Arc::new(Account {
            load: load.clone(),
            bytes: AtomicUsize::new(0),
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Takes room for a message of so many bytes, if there is any for this session.
    pub(crate) fn take(self: &Arc<Account>, bytes: usize) -> Result<Charge, NoRoom> {
        let load = &self.load;
        if !load.fits(bytes) {
            let held = self.bytes();
            // One message is not too much for a session, however small its share.
            if held > 0 && held + bytes > load.share() {
                return Err(NoRoom::OverShare);
            }
            if load.bytes().saturating_add(bytes) > load.budget {
                return Err(NoRoom::Full);
            }
        }
        Ok(Charge::new(self, bytes))
    }
}

/// A part of an account; given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Charge(Option<(Arc<Account>, usize)>);

impl Charge {
    /// Counts what is there, whether or not there is room for it.
    pub(crate) fn new(account: &Arc<Account>, bytes: usize) -> Charge {
        if bytes == 0 {
            return Charge::default();
        }
        account.load.bytes.fetch_add(bytes, Relaxed);
        if account.bytes.fetch_add(bytes, Relaxed) == 0 {
            account.load.holders.fetch_add(1, Relaxed);
        }
        Charge(Some((account.clone(), bytes)))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some((account, bytes)) = &self.0 {
            account.load.bytes.fetch_sub(*bytes, Relaxed);
            if account.bytes.fetch_sub(*bytes, Relaxed) == *bytes {
                account.load.holders.fetch_sub(1, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes messages of 10 bytes until there is no room; gives how many, and why no more.
    fn fill(account: &Arc<Account>, charges: &mut Vec<Charge>) -> (usize, NoRoom) {
        for count in 0.. {
            match account.take(10) {
                Ok(charge) => charges.push(charge),
                Err(why) => return (count, why),
            }
        }
        unreachable!()
    }

    #[test]
    fn one_alone_may_have_nearly_everything() {
        let load = Arc::new(Load::new(800));
        let account = Account::new(&load);
        let mut charges = Vec::new();
        assert_eq!(fill(&account, &mut charges), (70, NoRoom::OverShare));
        charges.clear();
        assert_eq!((account.bytes(), load.bytes(), load.share()), (0, 0, 800));
    }

    #[test]
    fn who_has_more_than_a_share_gets_no_more_and_who_has_less_gets_what_that_one_gives_up() {
        let load = Arc::new(Load::new(800));
        let (hog, small) = (Account::new(&load), Account::new(&load));
        let (mut of_hog, mut of_small) = (Vec::new(), Vec::new());
        fill(&hog, &mut of_hog);
        assert_eq!(fill(&small, &mut of_small), (10, NoRoom::Full));
        assert_eq!(hog.take(10).map(drop), Err(NoRoom::OverShare));
        of_hog.truncate(load.share() / 10);
        assert_eq!(fill(&small, &mut of_small), (34, NoRoom::OverShare));
        assert_eq!((hog.bytes(), small.bytes()), (260, 440));
    }

    #[test]
    fn a_message_larger_than_a_share_is_taken_by_who_has_none() {
        let load = Arc::new(Load::new(800));
        let accounts: Vec<_> = (0..10).map(|_| Account::new(&load)).collect();
        let mut charges: Vec<_> = accounts.iter().map(|a| Charge::new(a, 70)).collect();
        charges.pop();
        assert_eq!(accounts[0].take(90).map(drop), Err(NoRoom::OverShare));
        assert!(accounts[9].take(90).is_ok());
    }

    proptest! {
        #[test]
        fn when_all_keep_to_their_share_everybody_gets_one(
            events in proptest::collection::vec((0usize..8, 1usize..200), 1..200),
        ) {
            let load = Arc::new(Load::new(1_000));
            let accounts: Vec<_> = (0..8).map(|_| Account::new(&load)).collect();
            let mut charges: Vec<Vec<Charge>> = (0..8).map(|_| Vec::new()).collect();
            for (of, bytes) in events {
                let mut taken = accounts[of].take(bytes);
                if matches!(taken, Err(NoRoom::Full)) {
                    for (account, charges) in accounts.iter().zip(&mut charges) {
                        while account.bytes() > load.share() {
                            charges.pop();
                        }
                    }
                    taken = accounts[of].take(bytes);
                    prop_assert!(taken.is_ok() || accounts[of].bytes() + bytes > load.share());
                }
                charges[of].extend(taken);
                prop_assert!(load.bytes() <= 1_000);
            }
            charges.clear();
            prop_assert_eq!((load.bytes(), load.share()), (0, 1_000));
        }
    }
}
