//! What keeps the ways from an application's logging into a publisher from feeding on themselves:
//! the logs of the crates that carry logs are left out, and so is what is logged while an event is
//! being made.

use std::cell::Cell;

/// Crates whose own logs are about carrying logs.
const OWN: [&str; 3] = ["thinglog_edge", "thinglog_journal", "rumqttc"];

thread_local! {
    /// Set while this thread makes an event: a value's `Debug` or `Display` may log.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether a target (a module's path, usually) is within one of our own crates.
pub(crate) fn is_own(target: &str) -> bool {
    OWN.iter().any(|own| {
        let rest = target.strip_prefix(own);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

/// Marks the thread as long as it lives, also when a value's `Debug` panics.
pub(crate) struct Inside(());

impl Inside {
    /// `None` when the thread is inside already: what is logged now is left out.
    pub(crate) fn enter() -> Option<Inside> {
        let free = INSIDE.try_with(|inside| !inside.replace(true));
        // A thread that is ending has no marks any more; nor is it inside anything of ours.
        // Made only then: one that is not given out would take the mark away when it goes.
        free.unwrap_or(true).then(|| Inside(()))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = INSIDE.try_with(|inside| inside.set(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_crate_names_are_ours() {
        assert!(is_own("thinglog_edge") && is_own("rumqttc::v5::eventloop"));
        assert!(!is_own("thinglog_edges::lamp") && !is_own("lamp::rumqttc") && !is_own(""));
    }

    #[test]
    fn nobody_gets_in_twice_at_a_time() {
        let outer = Inside::enter();
        assert!(outer.is_some() && Inside::enter().is_none());
        assert!(Inside::enter().is_none(), "asking changes nothing");
        drop(outer);
        assert!(Inside::enter().is_some());
    }
}
